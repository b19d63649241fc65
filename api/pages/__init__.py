"""The pages: where people look. Server-rendered, live by SSE, complete without JavaScript; `register(app)` adds them all."""

from __future__ import annotations

from flask import Blueprint, Flask

from api.pages import (
    admin,
    assets,
    batches,
    errors,
    i18n,
    jobs,
    jobs_change,
    live,
    rendering,
    sharing,
    sign_in,
    start,
    status,
    studio,
    trace,
)

NAVIGATION = (
    ("/", "Status"),
    ("/studio", "Studio"),
    ("/batches", "Batches"),
    ("/jobs", "Jobs"),
    ("/lookup", "Trace"),
    ("/admin", "Admin"),
)
AREAS: tuple[Blueprint, ...] = (
    status.pages,
    studio.pages,
    batches.pages,
    jobs_change.pages,
    jobs.pages,
    trace.pages,
    live.pages,
    start.pages,
    *admin.AREAS,
    sign_in.pages,
)


def register(app: Flask) -> None:
    """Put every page on the application, with what its templates need."""
    assets.init_app(app)
    i18n.init_app(app)
    rendering.init_app(app)
    sharing.init_app(app)
    live.init_app(app)
    errors.init_app(app)
    sign_in.init_app(app)
    for area in AREAS:
        app.register_blueprint(area)
    known = {rule.rule for rule in app.url_map.iter_rules()}
    app.jinja_env.globals["nav"] = lambda: [item for item in NAVIGATION if item[0] in known]
    app.jinja_env.globals["admin_tabs"] = admin.TABS
    app.jinja_env.globals["has_page"] = known.__contains__
