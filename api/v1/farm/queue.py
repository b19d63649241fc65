"""The queue: lanes, flows, caps. A tenant sees its own jobs; an admin sees all."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import Field

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import ResponseModel
from imagefarm.auth import Caller, Scope
from imagefarm.settings import Settings
from scheduler.metrics.farm_status import FarmState
from scheduler.metrics.read_farm import read_farm

routes = Routes(tag="queue")


class LaneResponse(ResponseModel):
    """The queue of one model."""

    model: str
    queued: int
    running: int
    oldest_s: float | None = Field(description="Age in seconds of the next job of the flow that has waited longest")
    workers: int = Field(description="Workers that serve this lane")
    resident: int = Field(description="Of these, the workers that have the model in memory")
    images_per_minute: float = Field(description="Over the last five minutes, of all tenants")
    drain_s: float | None = Field(description="Seconds until the queue is empty at this rate; null when no job finishes")


class FlowResponse(ResponseModel):
    """The jobs of one tenant in one priority class on one lane."""

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
    max_running_per_model: dict[str, int] = Field(description="Most jobs of each model that run at once in the whole farm")
    max_batch_rows: int
    max_running_set_images: int = Field(description="Most images in one worker's running set")


class QueueResponse(ResponseModel):
    """The whole queue, and the farm's state."""

    state: FarmState = Field(description="degraded: Redis or the scheduler is unavailable; waiting: no worker serves the queue")
    reason: str = Field(description="The reason, in a sentence")
    queued: int
    running: int
    lanes: list[LaneResponse]
    flows: list[FlowResponse]
    caps: Caps
    workers: int = Field(description="Workers that are alive")


@routes.get("/api/v1/queue", scope=Scope.READ, response=QueueResponse)
def get_queue(app_context: AppContext, caller: Caller) -> QueueResponse:
    """Get the queue: lanes, flows and caps."""
    with app_context.store.read() as session:
        farm = read_farm(session, app_context.catalogue, caller, redis_is_up=app_context.redis_health.is_up(), detailed=True)
    return QueueResponse(
        state=farm.status.name,
        reason=str(farm.status.reason),
        queued=farm.queued,
        running=farm.running,
        lanes=[
            LaneResponse(
                model=lane.model,
                queued=lane.queued,
                running=lane.running,
                oldest_s=None if lane.oldest_at is None else round(farm.now - lane.oldest_at, 3),
                workers=lane.workers,
                resident=lane.resident,
                images_per_minute=round(lane.rate, 2),
                drain_s=None if lane.drain_s is None else round(lane.drain_s, 1),
            )
            for lane in sorted(farm.lanes, key=lambda lane: lane.model)
            if lane.queued or lane.running
        ],
        flows=[FlowResponse.model_validate(asdict(flow)) for flow in farm.flows],
        caps=_caps(app_context.settings),
        workers=farm.alive,
    )


def _caps(settings: Settings) -> Caps:
    return Caps(
        max_queued=settings.max_queued,
        max_queued_per_tenant=settings.max_queued_per_tenant,
        max_running_per_tenant=settings.max_running_per_tenant,
        max_running_per_model=settings.max_running_per_model,
        max_batch_rows=settings.max_batch_rows,
        max_running_set_images=settings.max_running_set_images,
    )
