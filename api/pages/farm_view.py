"""The farm at one moment, as the status and admin pages show it: a word and its reason, workers, lanes, models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.http.context import AppContext
from api.v1.farm.farm_state import FarmStatus, farm_status
from imagefarm.auth import Caller
from imagefarm.states import JobState, WorkerState
from imagefarm.store import db_now
from imagefarm.store.models import Backlog, Job, Model, SweepState, Worker
from scheduler.metrics.throughput import IDLE, lane_throughput

SILENT_S = 12.0
"""A worker not heard of for so long is shown with the time of its silence."""
MAX_RUNNING_JOBS = 64
"""Running jobs that are named beside their workers."""


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that a worker holds."""

    id: str
    prompt: str
    count: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One worker. `silent_since` is its last heartbeat if that is long ago, else None. `load` is what it told last."""

    id: str
    name: str
    host: str
    pid: int
    device: str
    version: str
    state: str
    desired_state: str
    reason: str
    serves: tuple[str, ...]
    resident: tuple[str, ...]
    running: tuple[RunningJob, ...]
    silent_since: float | None
    heartbeat_at: float
    started_at: float
    facts: tuple[tuple[str, Any], ...]
    load: tuple[tuple[str, Any], ...]

    @property
    def shown_state(self) -> str:
        """The state a person cares about: what an operator wants of it, where that is more than `ready`."""
        if self.desired_state != WorkerState.READY and self.state != WorkerState.OFFLINE:
            return self.desired_state
        return self.state


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneView:
    """The queue of one model, and the model's own state."""

    model: str
    title: str
    queued: int
    running: int
    oldest_at: float | None
    workers: int
    resident: int
    state: str
    reason: str
    rate: float = 0.0
    """Pictures a minute; looked up only when the farm is looked at closely."""
    drain_s: float | None = None

    @property
    def is_broken(self) -> bool:
        return self.state in {"missing", "invalid"}

    @property
    def is_active(self) -> bool:
        """Somebody works or waits here, or could at once."""
        return bool(self.queued or self.running or self.resident or (self.state == "ready" and self.workers))


@dataclass(frozen=True, slots=True)
class FarmView:
    """Everything above together."""

    status: FarmStatus
    workers: tuple[WorkerView, ...]
    lanes: tuple[LaneView, ...]
    queued: int
    running: int

    @property
    def active_lanes(self) -> tuple[LaneView, ...]:
        """Lanes to show at once: in use, or asked for although the model cannot be loaded."""
        return tuple(lane for lane in self.lanes if lane.is_active or lane.state == "invalid")

    @property
    def other_lanes(self) -> tuple[LaneView, ...]:
        return tuple(lane for lane in self.lanes if lane not in self.active_lanes)


def farm_view(
    session: Session, app_context: AppContext, caller: Caller, *, redis_is_up: bool, detailed: bool = False
) -> FarmView:
    """The farm as this caller may see it: its own queue, or everybody's for an admin.

    `detailed`: also workers that have stopped, and what each told of its load.
    """
    now = session.scalar(select(db_now())) or 0.0
    rows = session.scalars(select(Worker).order_by(Worker.name, Worker.started_at.desc())).all()
    alive = [row for row in rows if row.state != WorkerState.OFFLINE]
    lanes = _lanes(session, app_context, caller, alive)
    if detailed:
        throughputs = lane_throughput(session, now)
        lanes = tuple(
            replace(lane, rate=throughput.images, drain_s=throughput.drain_s(lane.queued))
            for lane in lanes
            for throughput in [throughputs.get(lane.model, IDLE)]
        )
    queued, running = sum(lane.queued for lane in lanes), sum(lane.running for lane in lanes)
    workers = _workers(session, app_context, caller, list(rows) if detailed else alive, now, detailed=detailed)
    swept_at = session.scalar(select(SweepState.last_at)) or 0.0
    status = farm_status(alive, lanes, queued, running, redis_is_up=redis_is_up, sweep_late_s=now - swept_at)
    return FarmView(status, workers, lanes, queued, running)


def _workers(
    session: Session, app_context: AppContext, caller: Caller, rows: list[Worker], now: float, *, detailed: bool
) -> tuple[WorkerView, ...]:
    held = select(Job.id, Job.owner, Job.prompt, Job.count.label("number"), Job.recipe).where(Job.state == JobState.RUNNING)
    if caller.tenant_filter is not None:
        held = held.where(Job.tenant_id == caller.tenant_filter)
    running = session.execute(held.order_by(Job.id).limit(MAX_RUNNING_JOBS)).all()
    steps = app_context.progress.read([job.id for job in running])
    return tuple(
        WorkerView(
            id=row.id,
            name=row.name,
            host=row.host,
            pid=row.pid,
            device=row.device,
            version=row.version,
            state=_state_now(row.state, any(job.owner == row.id for job in running), whole=caller.is_admin),
            desired_state=row.desired_state,
            reason=row.reason,
            serves=tuple(map(str, row.serves)),
            resident=tuple(map(str, row.resident)),
            running=tuple(
                RunningJob(job.id, job.prompt, job.number, steps.get(job.id, 0), int(job.recipe["steps"]))
                for job in running
                if job.owner == row.id
            ),
            silent_since=row.heartbeat_at if now - row.heartbeat_at > SILENT_S else None,
            started_at=row.started_at,
            # the page shows the age of a heartbeat; unless looked at closely it must not change with each
            heartbeat_at=row.heartbeat_at if detailed else 0.0,
            facts=tuple(sorted(row.facts.items())) if detailed else (),
            load=tuple(sorted(row.load.items())) if detailed else (),
        )
        for row in rows
    )


def _state_now(told: str, holds: bool, *, whole: bool) -> str:
    """A worker's state; what it told of being busy may be a heartbeat old, so whoever sees all jobs gets what those say."""
    if whole and told in {WorkerState.READY, WorkerState.BUSY}:
        return WorkerState.BUSY if holds else WorkerState.READY
    return told


def _lanes(session: Session, app_context: AppContext, caller: Caller, alive: list[Worker]) -> tuple[LaneView, ...]:
    learnt = {row.name: row for row in session.scalars(select(Model))}
    counts = select(Backlog.model, func.sum(Backlog.queued), func.sum(Backlog.running)).group_by(Backlog.model)
    if caller.tenant_filter is not None:
        counts = counts.where(Backlog.tenant_id == caller.tenant_filter)
    backlog = {model: (int(queued), int(running)) for model, queued, running in session.execute(counts)}
    lanes = []
    for entry in app_context.catalogue.entries.values():
        queued, running = backlog.get(entry.name, (0, 0))
        row = learnt.get(entry.name)
        lanes.append(
            LaneView(
                model=entry.name,
                title=entry.title,
                queued=queued,
                running=running,
                oldest_at=_oldest(session, caller, entry.name) if queued else None,
                workers=sum(entry.name in worker.serves for worker in alive),
                resident=sum(entry.name in worker.resident for worker in alive),
                state=row.state if row else "unknown",
                reason=row.reason if row else "",
            )
        )
    # busiest first, then what could work, then the rest as the catalogue has it
    return tuple(sorted(lanes, key=lambda lane: (-(lane.queued + lane.running), not lane.is_active)))


def _oldest(session: Session, caller: Caller, model: str) -> float | None:
    # the least id of each flow: an index range each, however many wait
    flows = select(Backlog.priority_class, Backlog.tenant_id).where(Backlog.model == model, Backlog.queued > 0)
    if caller.tenant_filter is not None:
        flows = flows.where(Backlog.tenant_id == caller.tenant_filter)
    oldest: float | None = None
    for priority_class, tenant_id in session.execute(flows.limit(50)).all():
        at = session.scalar(
            select(Job.created_at)
            .where(
                Job.state == JobState.QUEUED,
                Job.model == model,
                Job.priority_class == priority_class,
                Job.tenant_id == tenant_id,
            )
            .order_by(Job.rank, Job.id)
            .limit(1)
        )
        oldest = at if oldest is None or (at is not None and at < oldest) else oldest
    return oldest
