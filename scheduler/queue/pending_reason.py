"""Why a job waits: one sentence for the person who asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, literal_column, select
from sqlalchemy.orm import Session

from imagefarm.settings import Settings
from imagefarm.states import BatchState, JobState, WorkerState
from imagefarm.store.compiled import CompiledStatement
from imagefarm.store.engine import db_now
from imagefarm.store.models import Backlog, Batch, Job, Model, Tenant, Worker
from scheduler.batches.lifecycle import STOPPED
from scheduler.queue.claim import KeyConcurrency
from scheduler.queue.workers import INSUFFICIENT_MEMORY

MAX_COUNTED = 1000
"""Jobs ahead are counted so far: every submit asks, and a table of a million rows may wait."""

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
"""The clock, the tenant's limits, how much of its runs, and how long the model takes to load."""
MODEL_RUNNING = select(func.coalesce(func.sum(Backlog.running), 0)).where(Backlog.model == bindparam("model"))
"""Asked only where the model has a cap."""
AHEAD = select(func.count()).select_from(
    select(Job.id)
    .where(
        Job.state == literal_column("'queued'"),  # not bound: the index is for these alone, and the planner must know
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
    """What decides why a queued job waits. `workers` are rows of WORKERS."""

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


def read_pending_reason(session: Session, job: Job, settings: Settings, context: WaitContext | None = None) -> str:
    """Say in a sentence what the job waits for, or what became of it. `context` is what was looked at already."""
    if job.state == JobState.HELD:
        batch = session.get(Batch, job.batch_id) if job.batch_id else None
        if batch is not None and batch.state == BatchState.PAUSED and (stopped := (batch.options or {}).get(STOPPED)):
            return (
                f"Held: its batch {batch.name!r} was stopped, for {stopped['failed']} of its jobs failed with {stopped['error']}."
            )
        if batch is not None and batch.state == BatchState.PAUSED:
            return f"Held: its batch {batch.name!r} is paused."
        if batch is None:
            return "Held."
        if batch.state == BatchState.HELD:
            return "Held: its batch waits for approval."
        return "Held: its batch enters the queue, some rows at a time."
    if job.state == JobState.RUNNING:
        return f"Rendering, attempt {job.attempt}."
    if job.state != JobState.QUEUED:
        return {
            JobState.SUCCEEDED: "Done.",
            JobState.CANCELLED: "Cancelled.",
            JobState.FAILED: f"Failed: {job.error_detail or job.error_code}.",
        }[JobState(job.state)]
    return _read_queued_reason(session, job, settings, context or _read_wait_context(session, job))


def read_pending_reasons(session: Session, jobs: Sequence[Job], settings: Settings) -> list[str]:
    """The sentence of each. Jobs of one tenant and model are decided by the same things: those are looked at once."""
    contexts: dict[tuple[str, str], WaitContext] = {}

    def what_decides(job: Job) -> WaitContext | None:
        if job.state != JobState.QUEUED:
            return None
        key = (job.tenant_id, job.model)
        if key not in contexts:
            contexts[key] = _read_wait_context(session, job)
        return contexts[key]

    return [read_pending_reason(session, job, settings, what_decides(job)) for job in jobs]


def _read_wait_context(session: Session, job: Job) -> WaitContext:
    sql = session.connection()
    now, limits, running, load_s = sql.execute(WAIT_CONTEXT, {"model": job.model, "tenant_id": job.tenant_id}).one()
    return WaitContext(now, limits or {}, running, load_s, [tuple(row) for row in sql.execute(WORKERS)])


def _read_queued_reason(session: Session, job: Job, settings: Settings, context: WaitContext) -> str:
    now, limits, running, load_s, _ = context
    if job.not_before > now:
        return f"Waits {job.not_before - now:.0f} s before attempt {job.attempt + 1}, after a failure."
    workers = [worker for worker in map(WorkerSnapshot._make, context.workers) if job.model in worker.serves]
    if not workers:
        return f"No worker serves model {job.model} now."
    usable = [worker for worker in workers if worker.desired_state == WorkerState.READY]
    if not usable:
        return f"Every worker that serves model {job.model} is draining or quarantined."
    if all(job.model in (worker.insufficient_memory or {}) for worker in usable):
        return f"No worker has the memory for model {job.model}: {(usable[0].insufficient_memory or {})[job.model]}."
    max_running = min(settings.max_running_per_tenant, int(limits.get("running", 10**9)))
    if running >= max_running:
        return f"Your cap of {max_running} running jobs is reached."
    most = settings.max_running_per_model.get(job.model)
    if most is not None and (session.connection().scalar(MODEL_RUNNING, {"model": job.model}) or 0) >= most:
        return f"The cap of {most} running jobs of model {job.model} is reached."
    if job.quota_id is not None and not (key_concurrency := KeyConcurrency(session)).has_capacity(job.quota_id):
        return f"The quota of {key_concurrency.max_running(job.quota_id):.0f} running jobs of its key is reached."
    if all(worker.state == WorkerState.STARTING for worker in usable):
        return "The worker is starting."
    flow = {"model": job.model, "priority_class": job.priority_class, "tenant_id": job.tenant_id}
    ahead = COUNT_AHEAD.run(session.connection(), flow | {"rank": job.rank, "job_id": job.id})[0][0]
    number = f"{MAX_COUNTED} or more" if ahead == MAX_COUNTED else str(ahead)
    place = f"{number} of your jobs of this lane are ahead of it." if ahead else "It is the next of its lane."
    if not any(job.model in worker.resident for worker in usable):
        load = f" (about {load_s:.0f} s)" if load_s else ""
        return f"{place} No worker has model {job.model} loaded yet; one will load it{load}."
    return place
