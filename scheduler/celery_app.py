"""The Celery application: tickets per lane on Redis. docs/architecture.md gives the reason for each setting."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.entity import Queue

from imagefarm.catalogue import Catalogue
from imagefarm.errors import ConfigurationError
from imagefarm.settings import Settings

SWEEP_QUEUE = "sweep"
SWEEP_TASK = "scheduler.sweep"
MAINTENANCE_QUEUE = "maintenance"
WEBHOOK_TASK = "scheduler.deliver_webhooks"
UPLOAD_TASK = "scheduler.upload_batches"
CLEANUP_TASK = "scheduler.clean_up"
CLEANUP_INTERVAL_S = 900.0
RENDER_TASK = "worker.render"
MAX_RUNNING_SET_S = 600.0
"""Seconds. No running set takes longer from claim to commit; a child that does is hung and is killed."""


def lane_queue(model: str) -> str:
    """The Celery queue that carries the tickets of a model's lane."""
    return f"lane.{model}"


def broker_url(redis_url: str) -> str:
    """Celery's form of a Redis URL: `unix://` becomes `redis+socket://`."""
    return redis_url.replace("unix://", "redis+socket://", 1)


def make_celery(settings: Settings, catalogue: Catalogue, *, publisher: bool = False) -> Celery:
    """Build the application. `publisher` is for processes that only send tickets and must never wait for Redis."""
    if not settings.redis_url:
        raise ConfigurationError("redis_url is not set: start the farm with `imagefarm up`, or set IMAGEFARM_REDIS_URL")
    app = Celery("imagefarm", broker=broker_url(settings.redis_url), set_as_current=not publisher)
    transport: dict[str, Any] = {
        "ack_emulation": False,
        "global_keyprefix": f"{settings.redis_prefix}:",
        "socket_keepalive": True,
        "health_check_interval": 10,
        "socket_timeout": 1 if publisher else 10,
        "socket_connect_timeout": 1 if publisher else 3,
    }
    app.conf.update(
        broker_transport_options=transport,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        task_create_missing_queues=False,
        task_time_limit=settings.ticket_slice_s + MAX_RUNNING_SET_S + 60,
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        task_publish_retry=not publisher,
        task_queues=[Queue(SWEEP_QUEUE), Queue(MAINTENANCE_QUEUE), *(Queue(lane_queue(name)) for name in catalogue.names())],
        task_default_queue=SWEEP_QUEUE,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_pool="prefork",
        worker_concurrency=1,
        worker_pool_start_method="spawn",
        worker_proc_alive_timeout=300,
        worker_soft_shutdown_timeout=60,
        worker_enable_soft_shutdown_on_idle=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        beat_enable_remote_control=True,
        beat_schedule={
            "sweep": {"task": SWEEP_TASK, "schedule": settings.sweep_interval_s, "options": {"queue": SWEEP_QUEUE}},
            "cleanup": {"task": CLEANUP_TASK, "schedule": CLEANUP_INTERVAL_S, "options": {"queue": MAINTENANCE_QUEUE}},
        },
        beat_schedule_filename=str(settings.data_dir / "run" / "beat-schedule"),
        timezone="UTC",
        enable_utc=True,
    )
    return app
