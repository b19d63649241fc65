"""Claim prefetch: claims the next jobs in a thread of its own, so that the device never waits for SQL."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from imagefarm.logs import get_logger
from scheduler.queue.claim import ClaimedJob, ClaimLimits, claim, has_work
from worker.render.context import WorkerContext

log = get_logger(__name__)

BUSY_PAUSE_S = 0.05
"""Poll interval after an empty claim while images render, in seconds."""
IDLE_PAUSE_S = 0.02
"""Poll interval after an empty claim while the worker is idle, in seconds."""
FRUITLESS_PAUSE_S = 0.2
"""Poll interval when jobs wait but this worker may not take any of them now, in seconds."""
AWAY_PAUSE_S = 1.0
"""Poll interval when the database did not answer, in seconds."""
RESERVE_OF = 8
"""One place in this many is reserved for interactive jobs, so that one can join at the next step even under bulk load."""
RESERVE_FROM = 4
"""Below this many places none is reserved, because it would cost bulk too much."""


@dataclass(frozen=True, slots=True)
class RunningSetCapacity:
    """What the running set can take: `free` of `max_images` places, including those that become free within two steps, and the
    compat key that new jobs must have, or None when the set is empty or about to be."""

    free: int
    max_images: int
    compat_key: str | None


class ClaimPrefetcher:
    """Claims one result ahead. The fair order decides once per quantum; in between, compatible jobs fill free places.

    A fair claim may return a job that cannot join the running set. It waits, leased, until the running set has emptied, and
    nothing else is claimed meanwhile. A job of another model or size therefore waits at most one quantum and one running set.
    """

    def __init__(self, context: WorkerContext) -> None:
        self.context = context
        self.failures = 0
        self._pending: Future[list[ClaimedJob]] | None = None
        self._not_before = 0.0
        self._fair_at = 0.0
        self._found = False
        """Whether the last claim brought jobs."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="claim-prefetch")

    @property
    def is_claiming(self) -> bool:
        """Whether a claim is in progress. Its result must be fetched, because it may hold jobs."""
        return self._pending is not None

    def start_claim(self, capacity: RunningSetCapacity) -> None:
        """Start a claim for this capacity, unless one is in progress or the last one was empty a moment ago."""
        now = time.monotonic()
        if self._pending is not None or now < self._not_before:
            return
        limits = self._limits(capacity, now)
        if limits is not None:
            self._pending = self._thread.submit(self._claim, limits, busy=capacity.compat_key is not None)

    def poll(self, *, wait_s: float = 0.0) -> list[ClaimedJob]:
        """Jobs claimed since the last call; waits at most `wait_s` for a claim in progress."""
        pending = self._pending
        if pending is None:
            return []
        try:
            jobs = pending.result(timeout=wait_s)
        except TimeoutError:
            return []
        self._pending = None
        return jobs

    def pause_s(self) -> float:
        """Seconds until the next claim may start."""
        return max(0.0, self._not_before - time.monotonic())

    def close(self) -> list[ClaimedJob]:
        """End the thread; return the jobs of the last claim."""
        self._thread.shutdown(wait=True)
        return self.poll()

    def _limits(self, capacity: RunningSetCapacity, now: float) -> ClaimLimits | None:
        settings = self.context.settings
        reserve = reserved(capacity.max_images)
        fair = capacity.compat_key is None or now - self._fair_at >= settings.quantum_s
        only_reserve = capacity.free <= reserve < capacity.max_images
        images = capacity.free if only_reserve else capacity.free - reserve
        if fair:
            images = max(1, images)  # a job that does not fit waits for the running set to empty
        if images < 1:
            return None
        return ClaimLimits(
            images=images,
            quantum_s=settings.quantum_s,
            lease_s=settings.lease_s,
            compat_key=None if fair else capacity.compat_key,
            interactive_only=only_reserve,
            max_running_per_tenant=settings.max_running_per_tenant,
            max_running_per_model=settings.max_running_per_model,
        )

    def _claim(self, limits: ClaimLimits, *, busy: bool) -> list[ClaimedJob]:
        """Runs in the prefetcher's thread."""
        context = self.context
        began = time.monotonic()
        try:
            # a cheap read before a claim that will probably find nothing
            if (limits.interactive_only or not self._found) and not has_work(
                context.store, context.identity.serves, interactive_only=limits.interactive_only
            ):
                self._found = False
                self._not_before = began + (BUSY_PAUSE_S if busy else IDLE_PAUSE_S)
                return []
            jobs = claim(
                context.store,
                context.identity.id,
                serves=context.identity.serves,
                resident=context.residency.names,
                limits=limits,
            )
        except SQLAlchemyError as error:
            self.failures += 1
            self._not_before = time.monotonic() + AWAY_PAUSE_S
            log.warning("claim_prefetch.failed", error=str(error)[:200], failures=self.failures)
            return []
        context.leased_jobs.add(jobs)
        self._note_deadlines(jobs)
        self._found = bool(jobs)
        if limits.compat_key is None and not limits.interactive_only:
            self._fair_at = began
        if not jobs:
            self._not_before = began + (BUSY_PAUSE_S if busy else FRUITLESS_PAUSE_S)
        return jobs

    def _note_deadlines(self, jobs: list[ClaimedJob]) -> None:
        """On the database's clock, because this machine's may be wrong."""
        ending = {job.id: job.expires_at for job in jobs if job.expires_at is not None}
        if not ending:
            return
        try:
            now = self.context.store.now()
        except SQLAlchemyError as error:
            self.failures += 1  # the jobs were in time when they were claimed
            log.warning("claim_prefetch.no_deadlines", error=str(error)[:200], failures=self.failures)
            return
        for job_id, expires_at in ending.items():
            self.context.leased_jobs.note_deadline(job_id, expires_at - now)


def reserved(max_images: int) -> int:
    """How many of `max_images` places are reserved for interactive jobs.

    >>> [reserved(max_images) for max_images in (1, 3, 4, 8, 16)]
    [0, 0, 1, 1, 2]
    """
    return max(int(max_images >= RESERVE_FROM), max_images // RESERVE_OF)
