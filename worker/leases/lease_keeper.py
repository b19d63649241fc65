"""The lease keeper: renews the leases of this worker while its render thread advances, and ends the worker when it hangs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from imagefarm.logs import get_logger
from imagefarm.store import Store
from scheduler.queue.lease import renew
from worker.leases.leased_jobs import LeasedJobs
from worker.process.step_deadline import StepDeadline

log = get_logger(__name__)

RENEWALS_PER_LEASE = 4
MAX_FINISH_S = 300.0
"""Seconds. An image that takes longer to store is stuck; its lease expires and another attempt renders it again."""


HUNG_EXIT = 72
STUCK_EXIT = 73
"""Phases in which the worker waits for a model load or the disk rather than for a job."""


def end_this_process(phase: str) -> None:
    """End the process at once, without exit hooks. The parent reads the exit code, requeues the jobs and starts a new child."""
    os._exit(HUNG_EXIT if phase == "step" else STUCK_EXIT)


class LeaseKeeper:
    """Renews leases every quarter of a lease, and at once after a hint that a job may be lost.

    A render thread that hangs inside a step (a broken driver, an endless loop) cannot be stopped from within. In that case no
    lease is renewed any more and `on_hang` is called.
    """

    def __init__(
        self,
        store: Store,
        owner: str,
        lease_s: float,
        *,
        leased_jobs: LeasedJobs,
        step_deadline: StepDeadline,
        on_hang: Callable[[str], None] = end_this_process,
    ) -> None:
        self.store = store
        self.owner = owner
        self.lease_s = lease_s
        self.leased_jobs = leased_jobs
        self.step_deadline = step_deadline
        self.on_hang = on_hang
        self.failures = 0
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def look_now(self) -> None:
        """Check in SQL at once which jobs are still leased, because an event says that one was cancelled."""
        self._wake.set()

    def renew_all(self) -> None:
        """Renew every lease. Jobs that this worker no longer owns are marked lost."""
        oldest = time.monotonic() - MAX_FINISH_S
        leased = {item.job.id for item in self.leased_jobs.all() if item.finishing_at is None or item.finishing_at > oldest}
        if not leased:
            return
        try:
            still = renew(self.store, self.owner, leased, self.lease_s)
        except SQLAlchemyError as error:
            # while the database is away, no other worker can claim these jobs: continue rendering and ask again later
            self.failures += 1
            log.warning("leases.not_renewed", error=str(error)[:200], jobs=len(leased), failures=self.failures)
            return
        self.leased_jobs.mark_lost(leased - still)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self.lease_s / RENEWALS_PER_LEASE)
            self._wake.clear()
            if self._stopping:
                return
            if self.step_deadline.is_met:
                self.renew_all()
            else:
                phase = self.step_deadline.phase
                log.critical("worker.hung", phase=phase, jobs=[item.job.id for item in self.leased_jobs.all()])
                self.on_hang(phase)
