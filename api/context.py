"""What a process of the API holds: settings, store, Redis, catalogue, ticket sender. Made once per process, found on the app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app
from redis import Redis

from api.listeners import EventReader
from api.progress import ProgressReader
from api.request_limit import RequestLimit
from imagefarm.catalogue import Catalogue
from imagefarm.live import LiveEvents
from imagefarm.outputs import LocalOutputStore, OutputStore
from imagefarm.redis import connect_redis
from imagefarm.settings import Settings
from imagefarm.store import Store
from imagefarm.tokens import TokenReader
from scheduler.celery_app import make_celery
from scheduler.tickets import TicketSender

KEY = "imagefarm"
REDIS_TIMEOUT_S = 1.0
"""A request never waits longer for Redis; what needs it goes on without."""


@dataclass(frozen=True, slots=True)
class Farm:
    """The farm as the API sees it. Handlers get it as their argument `farm`."""

    settings: Settings
    store: Store
    catalogue: Catalogue
    redis: Redis
    outputs: OutputStore
    ticket_sender: TicketSender
    tokens: TokenReader
    events: EventReader
    progress: ProgressReader
    requests: RequestLimit

    def close(self) -> None:
        """End the streams and give back every connection."""
        self.events.close()
        self.events.join()
        self.store.close()
        self.redis.close()
        self.requests.close()


def make_farm(settings: Settings) -> Farm:
    """Connect lazily to all that the API needs. Raises ConfigurationError if the settings do not say where Redis is."""
    catalogue = Catalogue.read(settings.catalogue_file)
    redis = connect_redis(settings, timeout_s=REDIS_TIMEOUT_S)
    store = Store(settings.database)
    store.listener = LiveEvents(redis, settings.redis_prefix)
    tokens = TokenReader(settings, store)
    tokens.check()
    return Farm(
        settings=settings,
        store=store,
        catalogue=catalogue,
        redis=redis,
        outputs=LocalOutputStore(settings.outputs, "api"),
        ticket_sender=TicketSender(make_celery(settings, catalogue, publisher=True), redis, settings.redis_prefix),
        tokens=tokens,
        events=EventReader(redis, settings.redis_prefix, max_streams=settings.max_streams),
        progress=ProgressReader(redis, settings.redis_prefix),
        requests=RequestLimit(settings),
    )


def init_app(app: Flask, farm: Farm) -> None:
    """Keep the farm on the application."""
    app.extensions[KEY] = farm


def farm_of(app: Flask) -> Farm:
    """The farm of an application."""
    return cast("Farm", app.extensions[KEY])


def current_farm() -> Farm:
    """The farm of the application that serves this request."""
    return farm_of(current_app)
