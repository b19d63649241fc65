"""The scheduler as a service: Celery beat sends a sweep every few seconds; a worker runs it, and maintenance beside it.

`celery -A scheduler.service worker -Q sweep,maintenance -P threads` and `celery -A scheduler.service beat` (`imagefarm scheduler`
starts both).
"""

from __future__ import annotations

import os
import threading
from functools import cached_property
from typing import Any

from celery.signals import setup_logging, worker_shutting_down
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import select

from imagefarm.catalogue import Catalogue
from imagefarm.event_publisher import EventPublisher
from imagefarm.logs import configure_logs, get_logger
from imagefarm.output_store import LocalOutputStore
from imagefarm.redis import connect_redis
from imagefarm.settings import load_settings
from imagefarm.states import WorkerState
from imagefarm.store import Store
from imagefarm.store.models import Worker
from scheduler.celery_app import CLEANUP_TASK, SWEEP_TASK, UPLOAD_TASK, WEBHOOK_TASK, make_celery
from scheduler.maintenance import POOL_SIZE, RETRY, SWEEPS, Maintenance, TaskLimit
from scheduler.recovery.sweep import RECONCILE_EVERY, sweep
from scheduler.tickets import top_up
from scheduler.wiring import SWEEP_STEPS

log = get_logger(__name__)
settings = load_settings()
app = make_celery(settings, Catalogue.read(settings.catalogue_file))
app.conf.update(worker_pool="threads", worker_concurrency=POOL_SIZE)

STORE_CONNECTIONS = 6
LEAVE_AFTER_S = 8.0
"""Seconds. A request or upload that takes longer after SIGTERM is abandoned, and SQL schedules it again."""


class Services:
    """Connections of this process, made at first use."""

    def __init__(self) -> None:
        self.sweeps = 0
        self.sweep_limit = TaskLimit("sweep", SWEEPS)

    @cached_property
    def redis(self) -> Redis:
        return connect_redis(settings)

    @cached_property
    def store(self) -> Store:
        store = Store(settings.database, pool_size=STORE_CONNECTIONS)
        store.listener = EventPublisher(self.redis, settings.redis_prefix)
        return store

    @cached_property
    def maintenance(self) -> Maintenance:
        return Maintenance(self.store, settings, LocalOutputStore(settings.outputs))


_services = Services()
_services_lock = threading.Lock()


def services() -> Services:
    """This process's connections, made once although tasks start in several threads."""
    with _services_lock:
        _ = _services.maintenance
    return _services


@setup_logging.connect
def _logs(**_: Any) -> None:
    configure_logs(settings, "scheduler")


@worker_shutting_down.connect
def _stops(**_: Any) -> None:
    services().maintenance.stopping.set()
    leave = threading.Timer(LEAVE_AFTER_S, os._exit, (0,))
    leave.daemon = True
    leave.start()


@app.task(name=SWEEP_TASK)
def run_sweep() -> None:
    """One sweep, then task messages for due webhooks and batches, and tickets for the lanes that have work."""
    services().sweep_limit.run(_sweep)


@app.task(name=WEBHOOK_TASK, **RETRY)
def deliver_webhooks() -> None:
    """Send due webhook messages."""
    services().maintenance.deliver_webhooks()


@app.task(name=UPLOAD_TASK, **RETRY)
def upload_batches() -> None:
    """Upload due batches to their buckets."""
    services().maintenance.upload_batches()


@app.task(name=CLEANUP_TASK, **RETRY)
def clean_up() -> None:
    """Remove what is no longer needed."""
    services().maintenance.clean_up()


def _sweep() -> None:
    own = services()
    report = sweep(own.store, settings, SWEEP_STEPS, reconcile=own.sweeps % RECONCILE_EVERY == 0)
    own.sweeps += 1
    own.store.checkpoint()
    try:
        if report.lanes:
            top_up(app, own.redis, settings.redis_prefix, report.lanes, serving(own.store))
        own.maintenance.send_due(app, own.redis, settings.redis_prefix)
    except (RedisError, OperationalError) as error:
        log.warning("sweep.messages_failed", error=str(error))


def serving(store: Store) -> dict[str, int]:
    """Number of live workers that serve each model."""
    numbers: dict[str, int] = {}
    with store.read() as session:
        for serves in session.scalars(select(Worker.serves).where(Worker.state != WorkerState.OFFLINE)):
            for model in serves:
                numbers[model] = numbers.get(model, 0) + 1
    return numbers
