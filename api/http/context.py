"""The objects that one API process shares: settings, store, Redis, catalogue, ticket sender. They are kept on the Flask app."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Semaphore
from typing import cast

from flask import Flask, current_app
from redis import Redis

from api.http.request_limit import RequestLimit
from api.live.event_fanout import EventFanout
from api.live.progress import ProgressReader
from api.live.redis_health import RedisHealth
from imagefarm.catalogue import Catalogue
from imagefarm.event_publisher import EventPublisher
from imagefarm.output_store import LocalOutputStore, OutputStore
from imagefarm.redis import connect_redis
from imagefarm.settings import Settings
from imagefarm.store import Store
from imagefarm.tokens import TokenReader
from scheduler.celery_app import make_celery
from scheduler.queue.pending_reason import PendingReasons
from scheduler.tickets import TicketSender
from scheduler.wiring import make_pending_reasons

KEY = "imagefarm"
REDIS_TIMEOUT_S = 1.0
"""Timeout of a Redis call in seconds. After it the request continues without Redis."""
DECODED_PICTURES = 1
"""Images that a process decodes at a time. One large image takes a good part of the process's memory."""


@dataclass(frozen=True, slots=True)
class AppContext:
    """The API's shared objects. Handlers receive them as their argument `app_context`."""

    settings: Settings
    store: Store
    catalogue: Catalogue
    redis: Redis
    outputs: OutputStore
    ticket_sender: TicketSender
    tokens: TokenReader
    events: EventFanout
    progress: ProgressReader
    redis_health: RedisHealth
    requests: RequestLimit
    pending_reasons: PendingReasons
    decode_slots: Semaphore = field(default_factory=lambda: Semaphore(DECODED_PICTURES))
    """Held while an image is decoded."""

    def close(self) -> None:
        """End the streams and close every connection."""
        self.events.close()
        self.events.join()
        self.store.close()
        self.redis.close()
        self.requests.close()


def make_app_context(settings: Settings) -> AppContext:
    """Build the shared objects; connections open on first use. Raises ConfigurationError for settings without a Redis address."""
    catalogue = Catalogue.read(settings.catalogue_file)
    redis = connect_redis(settings, timeout_s=REDIS_TIMEOUT_S)
    store = Store(settings.database)
    store.listener = EventPublisher(redis, settings.redis_prefix)
    tokens = TokenReader(settings, store)
    tokens.check()
    return AppContext(
        settings=settings,
        store=store,
        catalogue=catalogue,
        redis=redis,
        outputs=LocalOutputStore(settings.outputs, "api"),
        ticket_sender=TicketSender(make_celery(settings, catalogue, publisher=True), redis, settings.redis_prefix),
        tokens=tokens,
        events=EventFanout(redis, settings.redis_prefix, max_streams=settings.max_streams),
        progress=ProgressReader(redis, settings.redis_prefix),
        redis_health=RedisHealth(redis),
        requests=RequestLimit(settings),
        pending_reasons=make_pending_reasons(settings),
    )


def init_app(app: Flask, app_context: AppContext) -> None:
    """Store the shared objects on the application."""
    app.extensions[KEY] = app_context


def app_context_of(app: Flask) -> AppContext:
    """The shared objects of an application."""
    return cast("AppContext", app.extensions[KEY])


def current_app_context() -> AppContext:
    """The shared objects of the application that serves the current request."""
    return app_context_of(current_app)
