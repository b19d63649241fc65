"""Reads a snapshot of the farm: its state, workers, lanes and flows, as one caller may see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from imagefarm.auth import Caller
from imagefarm.catalogue import Catalogue
from imagefarm.states import JobState, WorkerState
from imagefarm.store import database_time
from imagefarm.store.models import Backlog, Flow, Job, Model, SweepState, Tenant, Worker
from scheduler.metrics.farm_status import farm_status
from scheduler.metrics.farm_view import FarmView, FlowView, LaneView, RunningJob, WorkerView
from scheduler.metrics.throughput import IDLE, Throughput, lane_throughput

SILENT_S = 12.0
"""A worker without a heartbeat for this time, in seconds, is shown as silent."""
MAX_RUNNING_JOBS = 64
"""Running jobs that are listed with their workers."""
MAX_HEADS = 50
"""Flows of a lane whose oldest job is looked up."""

ReadSteps = Callable[[Sequence[str]], Mapping[str, int]]
"""Reads the step that each of these jobs has reached, by job id."""


def read_farm(
    session: Session,
    catalogue: Catalogue,
    caller: Caller,
    *,
    redis_is_up: bool,
    read_steps: ReadSteps | None = None,
    detailed: bool = False,
) -> FarmView:
    """Read the farm as this caller may see it: the caller's own queue, or the queues of all tenants for an admin.

    With `read_steps`, workers are shown with their running jobs. `detailed` adds the rate of each lane, offline workers, and each
    worker's latest load report.
    """
    now = database_time(session)
    rows = session.scalars(select(Worker).order_by(Worker.name, Worker.started_at.desc())).all()
    alive = [row for row in rows if row.state != WorkerState.OFFLINE]
    flows = _flows(session, caller)
    lanes = _lanes(session, catalogue, flows, alive, lane_throughput(session, now) if detailed else {})
    running_jobs = () if read_steps is None else _running_jobs(session, caller, read_steps)
    queued, running = sum(lane.queued for lane in lanes), sum(lane.running for lane in lanes)
    swept_at = session.scalar(select(SweepState.last_at)) or 0.0
    return FarmView(
        status=farm_status(alive, lanes, queued, running, redis_is_up=redis_is_up, sweep_late_s=now - swept_at),
        workers=tuple(
            _worker(row, running_jobs, now, is_whole=caller.is_farm_admin and read_steps is not None, detailed=detailed)
            for row in (rows if detailed else alive)
        ),
        lanes=lanes,
        queued=queued,
        running=running,
        alive=len(alive),
        flows=tuple(
            FlowView(
                model=flow.model,
                priority=flow.priority_class,
                tenant=name or flow.tenant_id,
                queued=flow.queued,
                running=flow.running,
                weight=flow_weight or weight or 1.0,
            )
            for flow, name, weight, flow_weight in flows
        ),
        now=now,
    )


FlowRow = tuple[Backlog, str | None, float | None, float | None]
"""A flow, the name of its tenant, and the weights of the tenant and of the flow."""


def _flows(session: Session, caller: Caller) -> list[FlowRow]:
    statement = (
        select(Backlog, Tenant.name, Tenant.weight, Flow.weight)
        .join(Tenant, Tenant.id == Backlog.tenant_id, isouter=True)
        .join(Flow, (Flow.priority_class == Backlog.priority_class) & (Flow.tenant_id == Backlog.tenant_id), isouter=True)
        .where((Backlog.queued > 0) | (Backlog.running > 0))
        .order_by(Backlog.model, Backlog.priority_class, Backlog.tenant_id)
    )
    if caller.tenant_filter is not None:
        statement = statement.where(Backlog.tenant_id == caller.tenant_filter)
    return [(flow, name, weight, flow_weight) for flow, name, weight, flow_weight in session.execute(statement)]


def _running_jobs(session: Session, caller: Caller, read_steps: ReadSteps) -> tuple[tuple[str, RunningJob], ...]:
    """Running jobs, each with the id of the worker that runs it."""
    held = select(Job.id, Job.owner, Job.prompt, Job.count.label("number"), Job.recipe).where(Job.state == JobState.RUNNING)
    if caller.tenant_filter is not None:
        held = held.where(Job.tenant_id == caller.tenant_filter)
    rows = session.execute(held.order_by(Job.id).limit(MAX_RUNNING_JOBS)).all()
    steps = read_steps([row.id for row in rows])
    return tuple(
        (row.owner, RunningJob(row.id, row.prompt, row.number, steps.get(row.id, 0), int(row.recipe["steps"]))) for row in rows
    )


def _worker(
    row: Worker, running_jobs: Sequence[tuple[str, RunningJob]], now: float, *, is_whole: bool, detailed: bool
) -> WorkerView:
    running = tuple(job for owner, job in running_jobs if owner == row.id)
    return WorkerView(
        id=row.id,
        name=row.name,
        host=row.host,
        pid=row.pid,
        device=row.device,
        version=row.version,
        state=_state_now(row.state, bool(running), whole=is_whole),
        desired_state=row.desired_state,
        reason=row.reason,
        serves=tuple(map(str, row.serves)),
        resident=tuple(map(str, row.resident)),
        running=running,
        silent_since=row.heartbeat_at if now - row.heartbeat_at > SILENT_S else None,
        started_at=row.started_at,
        # the page shows the age of a heartbeat; without `detailed` the view must not change at each heartbeat
        heartbeat_at=row.heartbeat_at if detailed else 0.0,
        facts=tuple(sorted(row.facts.items())) if detailed else (),
        load=tuple(sorted(row.load.items())) if detailed else (),
    )


def _state_now(told: str, holds: bool, *, whole: bool) -> str:
    """A worker's state. The reported state may be a heartbeat old, so a caller who sees all jobs gets the state from these."""
    if whole and told in {WorkerState.READY, WorkerState.BUSY}:
        return WorkerState.BUSY if holds else WorkerState.READY
    return told


def _lanes(
    session: Session,
    catalogue: Catalogue,
    flows: Sequence[FlowRow],
    alive: Sequence[Worker],
    throughputs: Mapping[str, Throughput],
) -> tuple[LaneView, ...]:
    """The lanes of the catalogue's models, and of other models that still have jobs."""
    learnt = {row.name: row for row in session.scalars(select(Model))}
    by_model: dict[str, list[Backlog]] = {model: [] for model in catalogue.entries}
    for flow, *_ in flows:
        by_model.setdefault(flow.model, []).append(flow)
    lanes = []
    for model, of_lane in by_model.items():
        entry, row = catalogue.entries.get(model), learnt.get(model)
        queued = sum(flow.queued for flow in of_lane)
        throughput = throughputs.get(model, IDLE)
        lanes.append(
            LaneView(
                model=model,
                title=entry.title if entry else model,
                queued=queued,
                running=sum(flow.running for flow in of_lane),
                oldest_at=_oldest(session, [flow for flow in of_lane if flow.queued > 0]),
                workers=sum(model in worker.serves for worker in alive),
                resident=sum(model in worker.resident for worker in alive),
                state=row.state if row else "unknown",
                reason=row.reason if row else "",
                rate=throughput.images,
                drain_s=throughput.drain_s(queued),
            )
        )
    # busiest first, then lanes that could work, then the others in the catalogue's order
    return tuple(sorted(lanes, key=lambda lane: (-(lane.queued + lane.running), not lane.is_active)))


def _oldest(session: Session, flows: Sequence[Backlog]) -> float | None:
    """When the oldest head job of these flows was submitted. Reads one index range per flow, whatever the number of jobs."""
    heads = [
        session.scalar(
            select(Job.created_at)
            .where(
                Job.state == JobState.QUEUED,
                Job.model == flow.model,
                Job.priority_class == flow.priority_class,
                Job.tenant_id == flow.tenant_id,
            )
            .order_by(Job.rank, Job.id)
            .limit(1)
        )
        for flow in flows[:MAX_HEADS]
    ]
    return min((at for at in heads if at is not None), default=None)
