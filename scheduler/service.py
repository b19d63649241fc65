"""The scheduler as a service: Celery's beat sends a sweep every few seconds, a small worker runs it.

`celery -A scheduler.service worker -Q sweep -P solo` and `celery -A scheduler.service beat` (`imagefarm scheduler` starts both).
"""

from __future__ import annotations

from typing import Any

from celery.signals import setup_logging
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
from scheduler.batches.export.batch_delivery import BatchUploader
from scheduler.celery_app import SWEEP_TASK, make_celery
from scheduler.delivery.webhooks import WebhookSender
from scheduler.recovery.cleanup import CleanupRunner
from scheduler.recovery.sweep import RECONCILE_EVERY, sweep
from scheduler.tickets import top_up
from scheduler.wiring import SWEEP_STEPS

log = get_logger(__name__)
settings = load_settings()
app = make_celery(settings, Catalogue.read(settings.catalogue_file))
app.conf.update(worker_pool="solo", worker_prefetch_multiplier=4)


class Services:
    """Connections of this process, made at first use."""

    store: Store | None = None
    redis: Redis | None = None
    webhook_sender: WebhookSender | None = None
    uploader: BatchUploader | None = None
    cleanup_runner: CleanupRunner | None = None
    sweeps = 0


@setup_logging.connect
def _logs(**_: Any) -> None:
    configure_logs(settings, "scheduler")


@app.task(name=SWEEP_TASK)
def run_sweep() -> None:
    """One sweep, then webhooks that are due, cleanup if it is time, and tickets for the lanes that have work."""
    redis = Services.redis = Services.redis or connect_redis(settings)
    store = Services.store = Services.store or Store(settings.database, pool_size=2)
    store.listener = store.listener or EventPublisher(redis, settings.redis_prefix)
    report = sweep(store, settings, SWEEP_STEPS, reconcile=Services.sweeps % RECONCILE_EVERY == 0)
    Services.sweeps += 1
    store.checkpoint()
    webhook_sender = Services.webhook_sender = Services.webhook_sender or WebhookSender(store, settings)
    webhook_sender.wake()
    uploader = Services.uploader = Services.uploader or BatchUploader(store, settings, LocalOutputStore(settings.outputs))
    uploader.wake()
    cleanup_runner = Services.cleanup_runner = Services.cleanup_runner or CleanupRunner(
        store, LocalOutputStore(settings.outputs), asset_retention_s=settings.asset_retention_s
    )
    cleanup_runner.wake()
    if not report.lanes:
        return
    try:
        top_up(app, redis, settings.redis_prefix, report.lanes, serving(store))
    except (RedisError, OperationalError) as error:
        log.warning("sweep.tickets_failed", error=str(error))


def serving(store: Store) -> dict[str, int]:
    """How many live workers serve each model."""
    numbers: dict[str, int] = {}
    with store.read() as session:
        for serves in session.scalars(select(Worker.serves).where(Worker.state != WorkerState.OFFLINE)):
            for model in serves:
                numbers[model] = numbers.get(model, 0) + 1
    return numbers
