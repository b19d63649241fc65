"""Attempts: each claim of a job by a worker, and its outcome."""

from __future__ import annotations

from dataclasses import asdict

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import ResponseModel, Time
from imagefarm.auth import Caller, Scope
from imagefarm.store.attempts import attempts_of
from imagefarm.store.jobs import visible_job

routes = Routes(tag="jobs")


class AttemptResponse(ResponseModel):
    """One claim of a job. `outcome` and `ended_at` are null while it runs; `reason` explains an outcome other than success."""

    attempt: int
    worker: str
    claimed_at: Time
    ended_at: Time | None
    outcome: str | None
    reason: str | None


class AttemptList(ResponseModel):
    """All attempts of a job, newest first."""

    items: list[AttemptResponse]
    next_cursor: None = None


@routes.get("/api/v1/jobs/{job_id}/attempts", scope=Scope.READ, response=AttemptList)
def list_attempts(app_context: AppContext, caller: Caller, job_id: str) -> AttemptList:
    """List the attempts of a job, with the worker and outcome of each."""
    with app_context.store.read() as session:
        found = attempts_of(session, visible_job(session, job_id, caller.tenant_filter).id)
    return AttemptList(items=[AttemptResponse.model_validate(asdict(attempt)) for attempt in found])
