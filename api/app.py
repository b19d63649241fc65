"""The Flask application: `create_app(settings)`."""

from __future__ import annotations

from flask import Flask

from api import pages
from api.http import context, problems, request_limit, request_log, request_priority
from api.http.routes import register
from api.v1 import docs, events, prompts, webhooks
from api.v1.accounts import keys, limits, tenants, users
from api.v1.batches import downloads, picks
from api.v1.batches import routes as batches
from api.v1.farm import health, models, queue, settings, statistics, workers
from api.v1.images import assets
from api.v1.images import routes as images
from api.v1.jobs import attempts, replay
from api.v1.jobs import routes as jobs
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
    downloads.routes,
    downloads.job_routes,
    webhooks.routes,
    models.routes,
    prompts.routes,
    queue.routes,
    limits.routes,
    settings.routes,
    statistics.routes,
    tenants.routes,
    workers.routes,
    keys.routes,
    users.routes,
    health.routes,
    docs.routes,
)


def create_app(settings: Settings) -> Flask:
    """Build the API of one farm.

    It opens no connection, so call it after a fork. Raises ConfigurationError for settings that the API cannot run with.
    """
    app = Flask("api", static_url_path="/static")
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.url_map.strict_slashes = True
    app_context = context.make_app_context(settings)
    context.init_app(app, app_context)
    request_priority.init_app(app, app_context.store.reader)
    problems.init_app(app)
    request_log.init_app(app)
    request_limit.init_app(app)
    register(app, AREAS)
    docs.init_app(app)
    pages.register(app)
    return app
