"""The queue: lanes, flows, caps. A tenant sees its own work; an admin sees all."""

from __future__ import annotations

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import ResponseModel
from api.v1.farm.farm_state import FarmState, farm_status, redis_is_up
from imagefarm.auth import Caller, Scope
from imagefarm.states import JobState, WorkerState
from imagefarm.store import db_now
from imagefarm.store.models import Backlog, Flow, Job, SweepState, Tenant, Worker
from scheduler.metrics.throughput import IDLE, lane_throughput

routes = Routes(tag="queue")

MAX_HEADS = 200
"""Flows whose head is looked up for one answer."""


class LaneResponse(ResponseModel):
    """The queue of one model."""

    model: str
    queued: int
    running: int
    oldest_s: float | None = Field(description="Seconds that the next job of the longest waiting flow has waited")
    workers: int = Field(description="Workers that serve this lane")
    resident: int = Field(description="Of these, how many have the model in memory")
    images_per_minute: float = Field(description="Over the last five minutes, everybody's")
    drain_s: float | None = Field(description="Seconds until the queue is empty at this rate; null when nothing moves")


class FlowResponse(ResponseModel):
    """What one tenant has in one priority class on one lane."""

    model: str
    priority: str
    tenant: str
    queued: int
    running: int
    weight: float


class Caps(ResponseModel):
    """The limits in force."""

    max_queued: int
    max_queued_per_tenant: int
    max_running_per_tenant: int
    max_running_per_model: dict[str, int] = Field(description="Jobs of these models that run at once in the whole farm at most")
    max_batch_rows: int
    max_running_set_images: int = Field(description="Images that share one worker's forward pass at most")


class QueueResponse(ResponseModel):
    """The whole queue, and the farm's state in a word."""

    state: FarmState = Field(description="degraded: Redis or the scheduler is away; waiting: no worker takes what is queued")
    reason: str = Field(description="The reason, in a sentence")
    queued: int
    running: int
    lanes: list[LaneResponse]
    flows: list[FlowResponse]
    caps: Caps
    workers: int = Field(description="Workers that are alive")


@routes.get("/api/v1/queue", scope=Scope.READ, response=QueueResponse)
def get_queue(app_context: AppContext, caller: Caller) -> QueueResponse:
    """See the queue: lanes, flows and caps."""
    settings = app_context.settings
    with app_context.store.read() as session:
        statement = (
            select(Backlog, Tenant.name, Tenant.weight, Flow.weight.label("flow_weight"))
            .join(Tenant, Tenant.id == Backlog.tenant_id, isouter=True)
            .join(Flow, (Flow.priority_class == Backlog.priority_class) & (Flow.tenant_id == Backlog.tenant_id), isouter=True)
            .where((Backlog.queued > 0) | (Backlog.running > 0))
            .order_by(Backlog.model, Backlog.priority_class, Backlog.tenant_id)
        )
        if caller.tenant_filter is not None:
            statement = statement.where(Backlog.tenant_id == caller.tenant_filter)
        rows = session.execute(statement).all()
        waited = _waited(session, [row.Backlog for row in rows if row.Backlog.queued > 0])
        now = session.scalar(select(db_now())) or 0.0
        throughputs = lane_throughput(session, now)
        alive = session.scalars(select(Worker).where(Worker.state != WorkerState.OFFLINE)).all()
        sweep_late_s = now - (session.scalar(select(SweepState.last_at)) or 0.0)
    lanes: dict[str, LaneResponse] = {}
    for row in rows:
        model = row.Backlog.model
        lane = lanes.setdefault(
            model,
            LaneResponse(
                model=model,
                queued=0,
                running=0,
                oldest_s=waited.get(model),
                workers=sum(model in worker.serves for worker in alive),
                resident=sum(model in worker.resident for worker in alive),
                images_per_minute=round(throughputs.get(model, IDLE).images, 2),
                drain_s=None,
            ),
        )
        lane.queued += row.Backlog.queued
        lane.running += row.Backlog.running
        drain_s = throughputs.get(model, IDLE).drain_s(lane.queued)
        lane.drain_s = None if drain_s is None else round(drain_s, 1)
    queued, running = sum(lane.queued for lane in lanes.values()), sum(lane.running for lane in lanes.values())
    status = farm_status(alive, [*lanes.values()], queued, running, redis_is_up=redis_is_up(), sweep_late_s=sweep_late_s)
    return QueueResponse(
        state=status.name,
        reason=status.reason.format(**dict(status.values)),
        queued=queued,
        running=running,
        lanes=list(lanes.values()),
        flows=[
            FlowResponse(
                model=row.Backlog.model,
                priority=row.Backlog.priority_class,
                tenant=row.name or row.Backlog.tenant_id,
                queued=row.Backlog.queued,
                running=row.Backlog.running,
                weight=row.flow_weight or row.weight or 1.0,
            )
            for row in rows
        ],
        caps=Caps(
            max_queued=settings.max_queued,
            max_queued_per_tenant=settings.max_queued_per_tenant,
            max_running_per_tenant=settings.max_running_per_tenant,
            max_running_per_model=settings.max_running_per_model,
            max_batch_rows=settings.max_batch_rows,
            max_running_set_images=settings.max_running_set_images,
        ),
        workers=len(alive),
    )


def _waited(session: Session, flows: list[Backlog]) -> dict[str, float]:
    """By model, how long the head of the flow that waits longest has waited."""
    now = session.scalar(select(db_now())) or 0.0
    longest: dict[str, float] = {}
    for flow in flows[:MAX_HEADS]:
        head = session.scalar(
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
        if head is not None:
            longest[flow.model] = max(longest.get(flow.model, 0.0), round(now - head, 3))
    return longest
