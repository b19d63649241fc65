"""Private parts of Celery's prefork pool, and of billiard under it, that the worker's parent uses. No other file uses them.

Celery 5.7 and billiard 4.2. `tests/worker/process/test_billiard_adapter.py` runs a real pool and fails when one of them changes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from billiard.common import human_status
from celery.platforms import EX_OK
from celery.worker import state as celery_state

POOL_STEP = "celery.worker.components:Pool"
"""The step of Celery's worker that creates the pool."""


class PreforkPool:
    """The processes of a Celery worker. `worker` is what Celery passes to a bootstep."""

    def __init__(self, worker: Any) -> None:
        self._pool = worker.pool._pool

    def pids(self) -> list[int]:
        """Pids of the pool's processes, including those whose end the pool has not noticed yet."""
        return [process.pid for process in list(self._pool._pool)]

    def terminate_children(self) -> None:
        """Send SIGTERM to each process."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def reap(self) -> None:
        """Replace processes that ended. Without this call the pool checks only every 5 s."""
        self._pool.maintain_pool()

    def on_child_end(self, report: Callable[[int, int | None], None]) -> None:
        """Call `report(pid, exitcode)` once for each process that ends, after Celery's own callback and before the next process
        is created. Celery replaces its callback at every connection to the broker; call this method again after that.
        """
        celerys_own = self._pool.on_process_down

        def on_process_down(process: Any) -> None:
            celerys_own(process)
            if not getattr(process, "end_reported", False):
                process.end_reported = True
                report(process.pid, process.exitcode)

        self._pool.on_process_down = on_process_down


def describe_exit(exitcode: int | None) -> str:
    """An exit code as text, such as `signal 9 (SIGKILL)`."""
    return str(human_status(exitcode))


def has_active_tasks() -> bool:
    """Whether this worker's pool is running a task."""
    return bool(celery_state.active_requests)


def request_shutdown() -> None:
    """Stop Celery's worker, as its own SIGTERM handler does, but without waiting for its tasks first."""
    celery_state.should_stop = EX_OK
