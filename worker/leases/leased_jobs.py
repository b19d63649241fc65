"""What this worker holds under lease: every job from its claim until its end is committed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.queue.claim import ClaimedJob


@dataclass(slots=True)
class LeasedJob:
    """One job with the times (monotonic) of its claim and of its way into the finishing pool, and its last step."""

    job: ClaimedJob
    claimed_at: float
    finishing_at: float | None = None
    step: int = 0
    steps: int = 0
    begin_by: float | None = None
    """When (monotonic) it is too late to begin; None: never, or it has begun."""


class LeasedJobs:
    """The leased jobs, shared by the render thread, the finishing threads and the lease keeper."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, LeasedJob] = {}
        self._lost: set[str] = set()

    def add(self, jobs: Iterable[ClaimedJob]) -> None:
        """These were just claimed."""
        now = time.monotonic()
        with self._lock:
            for job in jobs:
                self._jobs[job.id] = LeasedJob(job, now, steps=job.recipe.steps)
                self._lost.discard(job.id)

    def remove(self, job: ClaimedJob) -> None:
        """This attempt has ended, one way or the other. A later attempt of the same job, leased by now, stays."""
        with self._lock:
            leased = self._jobs.get(job.id)
            if leased is not None and leased.job.attempt == job.attempt:
                del self._jobs[job.id]
                self._lost.discard(job.id)

    def note_deadline(self, job_id: str, left_s: float) -> None:
        """So many seconds are left for it to begin."""
        leased = self._jobs.get(job_id)
        if leased is not None:
            leased.begin_by = time.monotonic() + left_s

    def note_begun(self, job_id: str) -> None:
        """It begins now, and may take as long as it takes."""
        leased = self._jobs.get(job_id)
        if leased is not None:
            leased.begin_by = None

    def is_late(self, job_id: str) -> bool:
        """Whether its time was up before it began."""
        leased = self._jobs.get(job_id)
        return leased is not None and leased.begin_by is not None and time.monotonic() > leased.begin_by

    def note_step(self, job_id: str, step: int, steps: int) -> None:
        leased = self._jobs.get(job_id)
        if leased is not None:
            leased.step, leased.steps = step, steps

    def note_finishing(self, job_id: str) -> None:
        """All its images are rendered; what is left is to store them."""
        leased = self._jobs.get(job_id)
        if leased is not None:
            leased.finishing_at, leased.step = time.monotonic(), leased.steps

    def all(self) -> list[LeasedJob]:
        with self._lock:
            return list(self._jobs.values())

    def get(self, job_id: str) -> LeasedJob | None:
        return self._jobs.get(job_id)

    def mark_lost(self, job_ids: Iterable[str]) -> None:
        """These were cancelled, or belong to another by now: the render thread shall let them go at the next step."""
        with self._lock:
            self._lost.update(job_id for job_id in job_ids if job_id in self._jobs)

    def take_lost(self) -> list[ClaimedJob]:
        """The lost jobs, each told once."""
        if not self._lost:
            return []
        with self._lock:
            lost = [self._jobs[job_id].job for job_id in self._lost if job_id in self._jobs]
            self._lost.clear()
            return lost

    def __len__(self) -> int:
        return len(self._jobs)
