"""What a process of the API holds: settings, store, Redis, catalogue, ticket sender. Made once per process, found on the app."""

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
"""A request never waits longer for Redis; what needs it goes on without."""
DECODED_PICTURES = 1
"""Pictures decoded at a time: a large one takes a good part of the memory that this process may use."""


@dataclass(frozen=True, slots=True)
class AppContext:
    """The farm as the API sees it. Handlers get it as their argument `app_context`."""

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
    """Held while a picture is decoded."""

    def close(self) -> None:
        """End the streams and give back every connection."""
        self.events.close()
        self.events.join()
        self.store.close()
        self.redis.close()
        self.requests.close()


def make_app_context(settings: Settings) -> AppContext:
    """Connect lazily to all that the API needs. Raises ConfigurationError if the settings do not say where Redis is."""
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
    """Keep the farm on the application."""
    app.extensions[KEY] = app_context


def app_context_of(app: Flask) -> AppContext:
    """The farm of an application."""
    return cast("AppContext", app.extensions[KEY])


def current_app_context() -> AppContext:
    """The farm of the application that serves this request."""
    return app_context_of(current_app)
