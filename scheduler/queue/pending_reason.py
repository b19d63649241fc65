"""Why a job waits, or how it ended: a code for programs, a sentence for people, and the values of both.

The queue knows its own reasons. Only the part of the farm that holds a job knows why it is held, so `PendingReasons` is
created with that part's function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import bindparam, func, literal_column, select
from sqlalchemy.orm import Session

from imagefarm.messages import N_
from imagefarm.settings import Settings
from imagefarm.states import JobState, WorkerState
from imagefarm.store.compiled import CompiledStatement
from imagefarm.store.engine import db_now
from imagefarm.store.models import Backlog, Job, Model, Tenant, Worker
from scheduler.queue.claim import KeyConcurrency
from scheduler.queue.workers import INSUFFICIENT_MEMORY

MESSAGES = {
    "held": N_("Held."),
    "running": N_("Rendering, attempt %(attempt)s."),
    "succeeded": N_("Done."),
    "failed": N_("Failed: %(error)s."),
    "cancelled": N_("Cancelled."),
    "retry_backoff": N_("Waiting %(wait_s)s s before attempt %(attempt)s, after a failure."),
    "no_worker": N_("No worker serves model %(model)s now."),
    "no_ready_worker": N_("Waiting: all workers for model %(model)s are draining or quarantined."),
    "insufficient_memory": N_("No worker has enough memory for model %(model)s: %(detail)s."),
    "tenant_limit": N_("Your limit of running jobs is reached: %(max_running)s."),
    "model_limit": N_("The limit of running jobs of model %(model)s is reached: %(max_running)s."),
    "key_limit": N_("The limit of running jobs of this key is reached: %(max_running)s."),
    "worker_starting": N_("The worker is starting."),
    "next_in_lane": N_("Next in line."),
    "jobs_ahead": N_("Your jobs ahead of this one: %(ahead)s."),
    "many_jobs_ahead": N_("Your jobs ahead of this one: %(ahead)s or more."),
    "model_not_loaded": N_("Model %(model)s is not loaded yet; a worker will load it."),
    "model_load_time_known": N_("Model %(model)s is not loaded yet; a worker will load it (about %(load_s)s s)."),
}
"""The English sentence of each code. Pages translate it and fill in the values themselves."""

MAX_COUNTED = 1000
"""Most jobs ahead that are counted, because every submit asks and a million jobs may wait."""

WORKERS = select(
    Worker.state,
    Worker.desired_state,
    Worker.serves,
    Worker.resident,
    Worker.facts[INSUFFICIENT_MEMORY].label("insufficient_memory"),
).where(Worker.state != WorkerState.OFFLINE)
WAIT_CONTEXT = select(
    db_now(),
    select(Tenant.limits).where(Tenant.id == bindparam("tenant_id")).scalar_subquery(),
    select(func.coalesce(func.sum(Backlog.running), 0)).where(Backlog.tenant_id == bindparam("tenant_id")).scalar_subquery(),
    select(Model.load_s).where(Model.name == bindparam("model")).scalar_subquery(),
)
"""The clock, the tenant's limits and running jobs, and how long the model takes to load."""
MODEL_RUNNING = select(func.coalesce(func.sum(Backlog.running), 0)).where(Backlog.model == bindparam("model"))
"""Read only where the model has a cap."""
AHEAD = select(func.count()).select_from(
    select(Job.id)
    .where(
        Job.state == literal_column("'queued'"),  # a literal and not a bound value, so that the planner can use the partial index
        Job.model == bindparam("model"),
        Job.priority_class == bindparam("priority_class"),
        Job.tenant_id == bindparam("tenant_id"),
        (Job.rank < bindparam("rank")) | ((Job.rank == bindparam("rank")) & (Job.id < bindparam("job_id"))),
    )
    .limit(MAX_COUNTED)
    .subquery()
)


COUNT_AHEAD = CompiledStatement(AHEAD)


class WaitContext(NamedTuple):
    """The data that explains why a queued job waits. `workers` are rows of WORKERS."""

    now: float
    limits: Mapping[str, Any]
    running: int
    load_s: float | None
    workers: Sequence[tuple[Any, ...]]


class WorkerSnapshot(NamedTuple):
    """A row of WORKERS."""

    state: str
    desired_state: str
    serves: list[str]
    resident: list[str]
    insufficient_memory: dict[str, str] | None


class PendingReason(NamedTuple):
    """Why one job waits. `code` names the reason; `values` holds what the sentences name, and further values for programs.

    `sentences` are the English formats, in order. `message` is those with the values filled in.
    """

    code: str
    values: Mapping[str, str | int]
    sentences: tuple[str, ...]

    @property
    def message(self) -> str:
        return " ".join(sentence % self.values for sentence in self.sentences)


class ExplainHeld(Protocol):
    """Explains why a job is held; None if this part of the farm does not hold it."""

    def __call__(self, session: Session, job: Job) -> PendingReason | None: ...


def _because(code: str, **values: str | int) -> PendingReason:
    return PendingReason(code, values, (MESSAGES[code],))


class PendingReasons:
    """Explains jobs by the limits in `settings` and by `explain_held`."""

    def __init__(self, settings: Settings, explain_held: ExplainHeld) -> None:
        self.settings = settings
        self.explain_held = explain_held

    def explain(self, session: Session, job: Job, context: WaitContext | None = None) -> PendingReason:
        """What the job waits for, or how it ended. `context` is what was already read."""
        if job.state == JobState.QUEUED:
            return self._explain_queued(session, job, context or _read_wait_context(session, job))
        if job.state == JobState.HELD:
            return self.explain_held(session, job) or _because("held")
        if job.state == JobState.RUNNING:
            return _because("running", attempt=job.attempt)
        if job.state == JobState.FAILED:
            return _because("failed", error=job.error_detail or job.error_code or "", error_code=job.error_code or "")
        return _because(str(job.state))

    def explain_all(self, session: Session, jobs: Sequence[Job]) -> list[PendingReason]:
        """The reason of each job. Jobs of one tenant and model share one context, which is read once."""
        contexts: dict[tuple[str, str], WaitContext] = {}

        def context_of(job: Job) -> WaitContext | None:
            if job.state != JobState.QUEUED:
                return None
            key = (job.tenant_id, job.model)
            if key not in contexts:
                contexts[key] = _read_wait_context(session, job)
            return contexts[key]

        return [self.explain(session, job, context_of(job)) for job in jobs]

    def _explain_queued(self, session: Session, job: Job, context: WaitContext) -> PendingReason:
        if job.not_before > context.now:
            return _because("retry_backoff", wait_s=round(job.not_before - context.now), attempt=job.attempt + 1)
        workers = [worker for worker in map(WorkerSnapshot._make, context.workers) if job.model in worker.serves]
        usable = [worker for worker in workers if worker.desired_state == WorkerState.READY]
        return (
            _explain_workers(job.model, workers, usable)
            or self._explain_limits(session, job, context)
            or (_because("worker_starting") if all(worker.state == WorkerState.STARTING for worker in usable) else None)
            or _explain_position(session, job, usable, context.load_s)
        )

    def _explain_limits(self, session: Session, job: Job, context: WaitContext) -> PendingReason | None:
        max_running = min(self.settings.max_running_per_tenant, int(context.limits.get("running", 10**9)))
        if context.running >= max_running:
            return _because("tenant_limit", max_running=max_running)
        most = self.settings.max_running_per_model.get(job.model)
        if most is not None and (session.connection().scalar(MODEL_RUNNING, {"model": job.model}) or 0) >= most:
            return _because("model_limit", max_running=most, model=job.model)
        if job.quota_id is not None and not (key_concurrency := KeyConcurrency(session)).has_capacity(job.quota_id):
            return _because("key_limit", max_running=round(key_concurrency.max_running(job.quota_id)))
        return None


def _read_wait_context(session: Session, job: Job) -> WaitContext:
    sql = session.connection()
    now, limits, running, load_s = sql.execute(WAIT_CONTEXT, {"model": job.model, "tenant_id": job.tenant_id}).one()
    return WaitContext(now, limits or {}, running, load_s, [tuple(row) for row in sql.execute(WORKERS)])


def _explain_workers(model: str, workers: list[WorkerSnapshot], usable: list[WorkerSnapshot]) -> PendingReason | None:
    if not workers:
        return _because("no_worker", model=model)
    if not usable:
        return _because("no_ready_worker", model=model)
    if all(model in (worker.insufficient_memory or {}) for worker in usable):
        return _because("insufficient_memory", model=model, detail=(usable[0].insufficient_memory or {})[model])
    return None


def _explain_position(session: Session, job: Job, usable: list[WorkerSnapshot], load_s: float | None) -> PendingReason:
    flow = {"model": job.model, "priority_class": job.priority_class, "tenant_id": job.tenant_id}
    ahead = COUNT_AHEAD.run(session.connection(), flow | {"rank": job.rank, "job_id": job.id})[0][0]
    code = "many_jobs_ahead" if ahead == MAX_COUNTED else "jobs_ahead" if ahead else "next_in_lane"
    values: dict[str, str | int] = {"ahead": ahead}
    if any(job.model in worker.resident for worker in usable):
        return PendingReason(code, values, (MESSAGES[code],))
    values["model"] = job.model
    loading = "model_load_time_known" if load_s else "model_not_loaded"
    if load_s:
        values["load_s"] = round(load_s)
    return PendingReason("model_not_loaded", values, (MESSAGES[code], MESSAGES[loading]))
