"""Reads of attempts: the attempts of a job, and the last worker of each job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from imagefarm.store.models import Attempt, Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One claim of a job. `worker` is the worker's name, or its id after the worker's row was deleted."""

    attempt: int
    worker: str
    claimed_at: float
    ended_at: float | None
    outcome: str | None
    reason: str | None


def attempts_of(session: Session, job_id: str) -> list[AttemptRecord]:
    """A job's attempts, newest first."""
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
    """The name of the worker of each job's last attempt, by job id."""
    rows = session.execute(
        select(Attempt.job_id, Worker.name)
        .join(Worker, Worker.id == Attempt.owner)
        .where(Attempt.job_id.in_(job_ids))
        .order_by(Attempt.job_id, Attempt.attempt)
    )
    return dict(rows.all())
