"""Workers: their state, and the operator's commands to them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field
from sqlalchemy import select

from api.http.context import AppContext
from api.http.routes import Routes, read_body, whole_body
from api.http.schemas import Body, Query, ResponseModel, Time
from imagefarm.auth import Caller, Scope
from imagefarm.states import WorkerState
from imagefarm.store.models import Worker
from imagefarm.text import check_text
from scheduler.queue import workers

routes = Routes(tag="workers")


class WorkerResponse(ResponseModel):
    """One worker. Host, process, facts and load are shown to admins only."""

    id: str
    name: str
    state: WorkerState
    desired_state: str = Field(description="The operator's target state: ready, draining or quarantined")
    reason: str
    device: str
    version: str
    serves: list[str]
    resident: list[str] = Field(description="Models in its memory now")
    started_at: Time
    heartbeat_at: Time
    host: str | None = None
    pid: int | None = None
    facts: dict[str, Any] | None = None
    load: dict[str, Any] | None = None


class WorkerList(ResponseModel):
    """The workers, newest first."""

    items: list[WorkerResponse]
    next_cursor: None = None


class WorkerQuery(Query):
    """Which workers to list."""

    include_offline: bool = Field(
        False, description="Also stopped workers: within the last hour, or drained or quarantined ones within 30 days"
    )


class WorkerCommandRequest(Body):
    """The reason of a worker command."""

    reason: Annotated[str, Field(max_length=500), AfterValidator(check_text)] = ""


@routes.get("/api/v1/workers", scope=Scope.READ, response=WorkerList)
def list_workers(app_context: AppContext, caller: Caller, query: WorkerQuery) -> WorkerList:
    """List the workers."""
    statement = select(Worker).order_by(Worker.started_at.desc(), Worker.id.desc()).limit(1000)
    if not query.include_offline:
        statement = statement.where(Worker.state != WorkerState.OFFLINE)
    with app_context.store.read() as session:
        return WorkerList(items=[worker_response(row, caller) for row in session.scalars(statement)])


@routes.post("/api/v1/workers/{worker}/drain", scope=Scope.FARM, response=WorkerList)
def drain_worker(app_context: AppContext, caller: Caller, worker: str) -> WorkerList:
    """Drain a worker: it finishes its jobs and claims no new ones.

    `worker` is an id or a name. A JSON body `{"reason": "..."}` can give the reason.
    """
    return _set_desired_state(app_context, caller, worker, WorkerState.DRAINING)


@routes.post("/api/v1/workers/{worker}/resume", scope=Scope.FARM, response=WorkerList)
def resume_worker(app_context: AppContext, caller: Caller, worker: str) -> WorkerList:
    """Resume a drained or quarantined worker: it claims jobs again."""
    return _set_desired_state(app_context, caller, worker, WorkerState.READY)


@routes.post("/api/v1/workers/{worker}/quarantine", scope=Scope.FARM, response=WorkerList)
def quarantine_worker(app_context: AppContext, caller: Caller, worker: str) -> WorkerList:
    """Quarantine a worker: it claims no jobs until it is resumed."""
    return _set_desired_state(app_context, caller, worker, WorkerState.QUARANTINED)


def worker_response(row: Worker, caller: Caller) -> WorkerResponse:
    """Convert a worker to JSON, with the fields that the caller may see."""
    return WorkerResponse(
        id=row.id,
        name=row.name,
        state=WorkerState(row.state),
        desired_state=row.desired_state,
        reason=row.reason,
        device=row.device,
        version=row.version,
        serves=row.serves,
        resident=row.resident,
        started_at=row.started_at,
        heartbeat_at=row.heartbeat_at,
        host=row.host if caller.is_farm_admin else None,
        pid=row.pid if caller.is_farm_admin else None,
        facts=row.facts if caller.is_farm_admin else None,
        load=row.load if caller.is_farm_admin else None,
    )


def _set_desired_state(app_context: AppContext, caller: Caller, worker: str, desired_state: WorkerState) -> WorkerList:
    reason = read_body(WorkerCommandRequest).reason if whole_body() else ""
    told = workers.set_desired_state(app_context.store, worker, desired_state, by=caller.name, reason=reason)
    with app_context.store.read() as session:
        return WorkerList(items=[worker_response(session.get_one(Worker, one), caller) for one in told])
