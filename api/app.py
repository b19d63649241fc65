"""The application: `create_app(settings)` and nothing else."""

from __future__ import annotations

from flask import Flask

from api import (
    assets,
    attempts,
    batches,
    context,
    delivery,
    docs,
    events,
    farm_settings,
    giving_way,
    health,
    images,
    jobs,
    keys,
    limits,
    models,
    pages,
    picks,
    problems,
    prompts,
    queue,
    replay,
    request_limit,
    request_log,
    statistics,
    tenants,
    users,
    webhooks,
    workers,
)
from api.routes import register
from imagefarm.settings import Settings

AREAS = (
    jobs.routes,
    attempts.routes,
    replay.routes,
    events.routes,
    images.routes,
    assets.routes,
    batches.routes,
    picks.routes,
    delivery.routes,
    delivery.job_routes,
    webhooks.routes,
    models.routes,
    prompts.routes,
    queue.routes,
    limits.routes,
    farm_settings.routes,
    statistics.routes,
    tenants.routes,
    workers.routes,
    keys.routes,
    users.routes,
    health.routes,
    docs.routes,
)


def create_app(settings: Settings) -> Flask:
    """Build the API of one farm. Connects to nothing yet; make it after a fork, not before."""
    app = Flask("api", static_url_path="/static")
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.url_map.strict_slashes = True
    app_context = context.make_app_context(settings)
    context.init_app(app, app_context)
    giving_way.init_app(app, app_context.store.reader)
    problems.init_app(app)
    request_log.init_app(app)
    request_limit.init_app(app)
    register(app, AREAS)
    docs.init_app(app)
    pages.register(app)
    return app
