"""Attempts: each claim of a job by a worker, and how it ended."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import ResponseModel, Time
from api.v1.jobs.routes import visible_job
from imagefarm.auth import Caller, Scope
from imagefarm.store.models import Attempt, Worker

routes = Routes(tag="jobs")


class AttemptResponse(ResponseModel):
    """One claim of a job. `outcome` and `ended_at` are null while it lasts; `reason` says why it went no better."""

    attempt: int
    worker: str
    claimed_at: Time
    ended_at: Time | None
    outcome: str | None
    reason: str | None


class AttemptList(ResponseModel):
    """All attempts of a job, the last first."""

    items: list[AttemptResponse]
    next_cursor: None = None


@routes.get("/api/v1/jobs/{job_id}/attempts", scope=Scope.READ, response=AttemptList)
def list_attempts(app_context: AppContext, caller: Caller, job_id: str) -> AttemptList:
    """List the attempts of a job, with the worker of each and how it ended."""
    with app_context.store.read() as session:
        return AttemptList(items=attempts_of(session, visible_job(session, caller, job_id).id))


def attempts_of(session: Session, job_id: str) -> list[AttemptResponse]:
    """A job's attempts, the last first."""
    rows = session.execute(
        select(Attempt, Worker.name)
        .join(Worker, Worker.id == Attempt.owner, isouter=True)
        .where(Attempt.job_id == job_id)
        .order_by(Attempt.attempt.desc())
    )
    return [
        AttemptResponse(
            attempt=row.attempt,
            worker=name or row.owner,
            claimed_at=row.claimed_at,
            ended_at=row.ended_at,
            outcome=row.outcome,
            reason=row.reason,
        )
        for row, name in rows
    ]
