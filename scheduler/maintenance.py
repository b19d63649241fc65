"""Maintenance: webhooks, bucket uploads and cleanup, as Celery tasks on a queue of their own.

SQL says what is due and when to retry. A task message names none of it and may be lost, duplicated or late: while something is
due, each sweep sends another message.

The tasks run in threads of the sweep's process, because they mostly wait for other machines, and a process of their own would
take 100 MB. Celery can end a task in a process but not one in a thread, so each task ends by itself:

| task | soft limit: starts nothing new after | hard limit of what it has started |
|---|---|---|
| webhooks | 10 s, or at shutdown | 10 s per message (`webhooks.TIMEOUT_S`) |
| uploads | 300 s, or at shutdown | three tries of 60 s per file (`buckets.TIMEOUT`) |
| cleanup | shutdown | |

Each kind has a limit of concurrent tasks. The limits together leave threads free for the sweep, which therefore never waits for
a slow receiver or a large output folder.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from celery import Celery
from redis import Redis
from sqlalchemy.exc import SQLAlchemyError

from imagefarm.logs import get_logger
from imagefarm.output_store import OutputStore
from imagefarm.settings import Settings
from imagefarm.store import Store
from scheduler.batches.export import batch_delivery
from scheduler.celery_app import MAINTENANCE_QUEUE, UPLOAD_TASK, WEBHOOK_TASK
from scheduler.delivery import webhooks
from scheduler.recovery import cleanup

log = get_logger(__name__)
T = TypeVar("T")

SWEEPS, WEBHOOK_TASKS, UPLOAD_TASKS, CLEANUPS = 1, 24, 4, 1
"""Concurrent tasks of each kind in one process."""
SPARE_THREADS = 2
"""Threads for tasks over the limit, which return at once."""
POOL_SIZE = SWEEPS + WEBHOOK_TASKS + UPLOAD_TASKS + CLEANUPS + SPARE_THREADS
TASK_S = 10.0
"""Seconds after which a task takes no further webhook or batch."""
RETRY = {
    "autoretry_for": (SQLAlchemyError, OSError),
    "max_retries": 3,
    "retry_backoff": 5,
    "retry_backoff_max": 60,
}
"""Celery's retries, for a database or an output store that is away. Refusals by a receiver or a bucket are retried at the times
in SQL."""


class TaskLimit:
    """At most `limit` concurrent tasks of one kind in this process."""

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self._free = limit
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        """How many more may run now."""
        return self._free

    def run(self, work: Callable[[], T]) -> T | None:
        """Run `work`, or return None at once if the limit is reached; a later message will run it."""
        with self._lock:
            may_run = self._free > 0
            self._free -= may_run
        if not may_run:
            log.info("task.skipped", task=self.name, reason="as many as may run at once are running")
            return None
        try:
            return work()
        finally:
            with self._lock:
                self._free += 1


class Maintenance:
    """The bodies of the maintenance tasks. One object per process; thread-safe."""

    def __init__(self, store: Store, settings: Settings, outputs: OutputStore) -> None:
        self.store, self.settings, self.outputs = store, settings, outputs
        self.stopping = threading.Event()
        """Set at shutdown: running tasks end before their next message, file or group of files."""
        self._webhooks = TaskLimit("webhooks", WEBHOOK_TASKS)
        self._uploads = TaskLimit("uploads", UPLOAD_TASKS)
        self._cleanup = TaskLimit("cleanup", CLEANUPS)

    def deliver_webhooks(self) -> None:
        """Send due messages, one webhook after another."""
        self._webhooks.run(lambda: self._repeat(self._deliver_one_webhook))

    def upload_batches(self) -> None:
        """Upload due batches, one after another."""
        self._uploads.run(lambda: self._repeat(self._upload_one_batch))

    def clean_up(self) -> None:
        """Remove what is no longer needed."""
        removed = self._cleanup.run(
            lambda: cleanup.clean_up(
                self.store, self.outputs, asset_retention_s=self.settings.asset_retention_s, is_over=self.stopping.is_set
            )
        )
        if removed is not None:
            files, answers = removed
            log.info("cleanup.done", files=files, answers=answers)

    def send_due(self, app: Celery, redis: Redis, prefix: str) -> int:
        """Send a task message for each due webhook and batch, up to the number that may run at once; return how many.

        Sends none while earlier messages wait, because then no thread is free, or Redis lost its consumer. Raises RedisError and
        OperationalError when Redis is away.
        """
        with self.store.read() as session:
            due = {
                WEBHOOK_TASK: webhooks.count_due(session, self._webhooks.free),
                UPLOAD_TASK: batch_delivery.count_due(session, self._uploads.free),
            }
        if not any(due.values()) or redis.llen(f"{prefix}:{MAINTENANCE_QUEUE}"):
            return 0
        for task, number in due.items():
            for _ in range(number):
                app.send_task(task, queue=MAINTENANCE_QUEUE, retry=False)
        return sum(due.values())

    def _deliver_one_webhook(self) -> bool:
        return webhooks.deliver_due(self.store, self.settings, is_over=self.stopping.is_set) > 0

    def _upload_one_batch(self) -> bool:
        return batch_delivery.upload_due(self.store, self.settings, self.outputs, is_over=self.stopping.is_set)

    def _repeat(self, do_one: Callable[[], bool]) -> None:
        """Repeat until nothing is due, the task's time is over or the process stops."""
        deadline = time.monotonic() + TASK_S
        while do_one() and not self.stopping.is_set() and time.monotonic() < deadline:
            pass
