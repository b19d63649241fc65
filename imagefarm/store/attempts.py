"""Reads of attempts: those of a job, and who rendered it last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from imagefarm.store.models import Attempt, Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One claim of a job. `worker` is a name, or an id where the worker is not known any more."""

    attempt: int
    worker: str
    claimed_at: float
    ended_at: float | None
    outcome: str | None
    reason: str | None


def attempts_of(session: Session, job_id: str) -> list[AttemptRecord]:
    """A job's attempts, the last first."""
    rows = session.execute(
        select(Attempt, Worker.name)
        .join(Worker, Worker.id == Attempt.owner, isouter=True)
        .where(Attempt.job_id == job_id)
        .order_by(Attempt.attempt.desc())
    )
    return [
        AttemptRecord(
            attempt=row.attempt,
            worker=name or row.owner,
            claimed_at=row.claimed_at,
            ended_at=row.ended_at,
            outcome=row.outcome,
            reason=row.reason,
        )
        for row, name in rows
    ]


def last_workers(session: Session, job_ids: Sequence[str]) -> dict[str, str]:
    """By job, the name of the worker of its last attempt."""
    rows = session.execute(
        select(Attempt.job_id, Worker.name)
        .join(Worker, Worker.id == Attempt.owner)
        .where(Attempt.job_id.in_(job_ids))
        .order_by(Attempt.job_id, Attempt.attempt)
    )
    return dict(rows.all())
