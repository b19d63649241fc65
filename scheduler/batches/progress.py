"""Progress of a batch: its rate, its remaining time, and its failures grouped by reason."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from imagefarm.messages import N_
from imagefarm.states import JobState
from imagefarm.store import db_now
from imagefarm.store.models import Job

RATE_S = 60.0
REMEDIES = {
    "oom": N_("Use a smaller size, or serve the model from a worker with more memory. Then retry."),
    "poison": N_(
        "These jobs crashed their workers. Inspect one of them, change what is unusual about it, and submit it as a new job."
    ),
    "nan_output": N_("The model produced no valid picture. Try another seed or fewer steps; a retry gives the same result."),
    "blank_output": N_("The pictures have a single colour. Try another prompt or seed; a retry gives the same result."),
    "model_invalid": N_("Repair the model's files on the workers, then retry."),
    "expired": N_("No worker took these jobs in time. Retry them, or allow more time."),
    "storage": N_("Storage did not accept the pictures. Check that it is reachable and has free space, then retry."),
    "device_error": N_("A worker's device failed. Check the workers, then retry."),
    "deadline": N_("Rendering took too long. Use fewer steps or a smaller size."),
    "fetch_failed": N_("The address of a picture did not answer. Check that the farm can reach it, then retry."),
}
"""Remedy by error code. For any other code the error detail is sufficient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Jobs of a batch that failed for one reason, with the detail of one of them. `remedy` may be empty."""

    code: str
    number: int
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProgress:
    """Jobs that succeeded in the last minute, seconds to the batch's end at this rate (None: no job succeeded), and failures."""

    jobs_per_minute: int
    left_s: float | None
    failures: list[FailureGroup]


def read_progress(session: Session, batch_id: str, left: int) -> BatchProgress:
    """Read the progress of a batch in which `left` jobs have not ended."""
    rate = _rate(session, batch_id) if left else 0
    return BatchProgress(
        jobs_per_minute=rate, left_s=round(left / rate * 60, 1) if rate else None, failures=_failures(session, batch_id)
    )


def _rate(session: Session, batch_id: str) -> int:
    recent = select(func.count()).where(
        Job.batch_id == batch_id, Job.state == JobState.SUCCEEDED, Job.finished_at > db_now() - RATE_S
    )
    return session.scalar(recent) or 0


def _failures(session: Session, batch_id: str) -> list[FailureGroup]:
    rows = session.execute(
        select(Job.error_code, func.count(), func.min(Job.error_detail))
        .where(Job.batch_id == batch_id, Job.state == JobState.FAILED)
        .group_by(Job.error_code)
        .order_by(func.count().desc())
    )
    return [
        FailureGroup(code=code or "unknown", number=number, detail=detail or "", remedy=REMEDIES.get(code or "", ""))
        for code, number, detail in rows
    ]
