"""The web pages: rendered on the server, live by SSE, usable without JavaScript. `register(app)` adds them all."""

from __future__ import annotations

from flask import Flask

from api.pages import admin, assets, errors, getting_started, i18n, labels, lookup, registry, rendering, sign_in, status
from api.pages.batches import routes as batches
from api.pages.jobs import bulk_jobs
from api.pages.jobs import routes as jobs
from api.pages.live import render_cache, stream
from api.pages.studio import routes as studio
from imagefarm.messages import N_

NAVIGATION = (
    ("/", N_("Status")),
    ("/studio", N_("Studio")),
    ("/batches", N_("Batches")),
    ("/jobs", N_("Jobs")),
    ("/lookup", N_("Lookup")),
    ("/admin", N_("Admin")),
)
AREAS: tuple[registry.Pages, ...] = (
    status.pages,
    studio.pages,
    batches.pages,
    bulk_jobs.pages,
    jobs.pages,
    lookup.pages,
    stream.pages,
    getting_started.pages,
    *admin.AREAS,
    sign_in.pages,
)


def register(app: Flask) -> None:
    """Add every page to the application, with the globals that the templates use."""
    assets.init_app(app)
    i18n.init_app(app)
    labels.init_app(app)
    rendering.init_app(app)
    render_cache.init_app(app)
    stream.init_app(app)
    errors.init_app(app)
    sign_in.init_app(app)
    registry.register(app, AREAS)
    known = {rule.rule for rule in app.url_map.iter_rules()}
    app.jinja_env.globals["nav"] = lambda: [item for item in NAVIGATION if item[0] in known]
    app.jinja_env.globals["admin_tabs"] = admin.TABS
    app.jinja_env.globals["has_page"] = known.__contains__
