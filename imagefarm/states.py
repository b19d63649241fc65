"""The states of jobs, batches and workers, and the allowed transitions."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    HELD = "held"
    """Waits for its batch to be released; not claimable."""
    QUEUED = "queued"
    """Waits for a worker. A lost or retryable attempt comes back here."""
    RUNNING = "running"
    """Leased by a worker."""
    SUCCEEDED = "succeeded"
    """Every image is stored and committed."""
    FAILED = "failed"
    """Ended with an error that names its reason."""
    CANCELLED = "cancelled"
    """Ended by request before it succeeded."""

    @property
    def is_final(self) -> bool:
        return self in FINAL


FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
OPEN = frozenset(JobState) - FINAL

ALLOWED_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.HELD: frozenset({JobState.QUEUED, JobState.CANCELLED, JobState.FAILED}),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.HELD, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset({JobState.QUEUED}),  # an explicit retry
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}


class PriorityClass(StrEnum):
    INTERACTIVE = "interactive"
    """A person waits for the result. Weight 4 in fair sharing."""
    BULK = "bulk"
    """Rows of a table. Weight 1 in fair sharing, so a batch is never starved."""


CLASS_WEIGHTS = {PriorityClass.INTERACTIVE: 4.0, PriorityClass.BULK: 1.0}


class BatchState(StrEnum):
    VALIDATING = "validating"
    """Rows are still being read; its jobs are held."""
    HELD = "held"
    """A canary has run or is running; the other jobs wait for approval."""
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"


class WorkerState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    DRAINING = "draining"
    """Finishes its jobs and claims no others."""
    QUARANTINED = "quarantined"
    """Many jobs failed on it. It claims nothing until an operator resumes it."""
    OFFLINE = "offline"
    """Stopped, or without a heartbeat for the length of a lease."""
