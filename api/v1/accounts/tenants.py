"""Tenants for admins: what each may ask for and what it has of it, and its limits set."""

from __future__ import annotations

from pydantic import Field
from sqlalchemy.orm import Session

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import Body, ResponseModel
from api.v1.accounts.keys import KeyLimits
from imagefarm.auth import Caller, Scope
from imagefarm.settings import Settings
from imagefarm.tenants import MAX_TENANTS, TenantUse, Today, limit_tenant, tenants_in_use, today

routes = Routes(tag="queue")


class TenantResponse(ResponseModel):
    """A tenant: its weight, what it has in the queue, and what it asked for today (UTC)."""

    id: str
    name: str
    weight: float
    limits: dict[str, int] = Field(description="Its own, as they were set; the farm's hold besides")
    queued: int
    running: int
    images_today: int
    images_per_day: int | None = Field(description="The limit; null without one")
    max_queued: int = Field(description="The narrower of its own and the farm's")
    max_running: int = Field(description="The narrower of its own and the farm's")
    pixels: int | None = Field(description="Width times height of a picture at most; null without a limit")
    steps: int | None = Field(description="Steps at most; null without a limit")
    gpu_seconds_today: float = Field(description="Predicted, of what was asked for today")
    share: float = Field(description="Its part of all GPU-seconds asked for today, 0 to 1")
    fair_share: float = Field(description="Its part by weight among those who asked for something today, 0 to 1")


class TenantList(ResponseModel):
    """The tenants who have asked for most today first."""

    items: list[TenantResponse]
    next_cursor: None = None


class TenantLimits(KeyLimits):
    """What a tenant may ask for. A number sets a limit, null removes it, what is left out stays as it is."""


class TenantChange(Body):
    """What shall be otherwise."""

    limits: TenantLimits


@routes.get("/api/v1/tenants", scope=Scope.ADMIN, response=TenantList)
def list_tenants(app_context: AppContext, caller: Caller) -> TenantList:
    """List the tenants with their queues, their limits, their use of today and their share."""
    with app_context.store.read() as session:
        return TenantList(items=tenants(session, app_context))


@routes.patch("/api/v1/tenants/{tenant}", scope=Scope.ADMIN, response=TenantResponse)
def change_tenant(app_context: AppContext, caller: Caller, tenant: str, body: TenantChange) -> TenantResponse:
    """Set the limits of a tenant, by name or id.

    They hold from the next submit and the next claim; what waits or runs already stays. A limit wider than the farm's own has no
    effect.
    """
    changed = limit_tenant(app_context.store, tenant, body.limits.model_dump(exclude_unset=True), by=caller.name)
    with app_context.store.read() as session:
        return _response(changed, today(session), app_context.settings)


def tenants(session: Session, app_context: AppContext) -> list[TenantResponse]:
    """Tenants by what they asked for today."""
    whole = today(session)
    return [_response(one, whole, app_context.settings) for one in tenants_in_use(session, limit=MAX_TENANTS)]


def _response(one: TenantUse, whole: Today, settings: Settings) -> TenantResponse:
    own, queue, run = one.limits, settings.max_queued_per_tenant, settings.max_running_per_tenant
    return TenantResponse(
        id=one.id,
        name=one.name,
        weight=one.weight,
        limits=own,
        queued=one.queued,
        running=one.running,
        images_today=one.images_today,
        images_per_day=own.get("images_per_day"),
        max_queued=min(own.get("queued", queue), queue),
        max_running=min(own.get("running", run), run),
        pixels=own.get("pixels"),
        steps=own.get("steps"),
        gpu_seconds_today=round(one.gpu_s_today, 3),
        share=round(one.gpu_s_today / whole.gpu_s, 4) if whole.gpu_s else 0.0,
        fair_share=round(one.weight / whole.weight, 4) if one.gpu_s_today and whole.weight else 0.0,
    )
