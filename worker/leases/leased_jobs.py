"""The jobs under this worker's lease, from their claim until their end is committed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.queue.claim import ClaimedJob


@dataclass(slots=True)
class LeasedJob:
    """One job with the monotonic times of its claim, of its entry into the finishing pool, and of its last step."""

    job: ClaimedJob
    claimed_at: float
    finishing_at: float | None = None
    step: int = 0
    steps: int = 0
    begin_by: float | None = None
    """Monotonic time after which the job may not start. None: no limit, or it has started."""


class LeasedJobs:
    """The leased jobs, shared by the render thread, the finishing threads and the lease keeper."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, LeasedJob] = {}
        self._lost: set[str] = set()

    def add(self, jobs: Iterable[ClaimedJob]) -> None:
        """Add jobs that were just claimed."""
        now = time.monotonic()
        with self._lock:
            for job in jobs:
                self._jobs[job.id] = LeasedJob(job, now, steps=job.recipe.steps)
                self._lost.discard(job.id)

    def remove(self, job: ClaimedJob) -> None:
        """Remove a job whose attempt has ended. A later attempt of the same job that is leased by now stays."""
        with self._lock:
            leased = self._jobs.get(job.id)
            if leased is not None and leased.job.attempt == job.attempt:
                del self._jobs[job.id]
                self._lost.discard(job.id)

    def note_deadline(self, job_id: str, left_s: float) -> None:
        """Seconds that are left for the job to start."""
        leased = self._jobs.get(job_id)
        if leased is not None:
            leased.begin_by = time.monotonic() + left_s

    def note_begun(self, job_id: str) -> None:
        """Mark the job as started: from now on it has no start deadline."""
        leased = self._jobs.get(job_id)
        if leased is not None:
            leased.begin_by = None

    def is_late(self, job_id: str) -> bool:
        """Whether the start deadline passed before the job started."""
        leased = self._jobs.get(job_id)
        return leased is not None and leased.begin_by is not None and time.monotonic() > leased.begin_by

    def note_step(self, job_id: str, step: int, steps: int) -> None:
        leased = self._jobs.get(job_id)
        if leased is not None:
            leased.step, leased.steps = step, steps

    def note_finishing(self, job_id: str) -> None:
        """Mark all images of the job as rendered; only storing is left."""
        leased = self._jobs.get(job_id)
        if leased is not None:
            leased.finishing_at, leased.step = time.monotonic(), leased.steps

    def all(self) -> list[LeasedJob]:
        with self._lock:
            return list(self._jobs.values())

    def get(self, job_id: str) -> LeasedJob | None:
        return self._jobs.get(job_id)

    def mark_lost(self, job_ids: Iterable[str]) -> None:
        """Mark jobs that were cancelled or claimed by another worker. The render thread drops them at the next step."""
        with self._lock:
            self._lost.update(job_id for job_id in job_ids if job_id in self._jobs)

    def take_lost(self) -> list[ClaimedJob]:
        """The lost jobs that were not returned by an earlier call."""
        if not self._lost:
            return []
        with self._lock:
            lost = [self._jobs[job_id].job for job_id in self._lost if job_id in self._jobs]
            self._lost.clear()
            return lost

    def __len__(self) -> int:
        return len(self._jobs)
