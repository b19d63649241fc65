"""Tenants as JSON: their queues, limits, use of today and share."""

from __future__ import annotations

from pydantic import Field
from sqlalchemy.orm import Session

from api.http.schemas import Body, ResponseModel
from api.v1.schemas.keys import KeyLimits
from imagefarm.settings import Settings
from imagefarm.tenants import MAX_TENANTS, TenantUse, Today, tenants_in_use, today


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


class TenantLimits(KeyLimits):
    """What a tenant may ask for. A number sets a limit, null removes it, what is left out stays as it is."""


class TenantChange(Body):
    """What shall be otherwise."""

    limits: TenantLimits


def tenant_responses(session: Session, settings: Settings) -> list[TenantResponse]:
    """Tenants by what they asked for today."""
    whole = today(session)
    return [tenant_response(one, whole, settings) for one in tenants_in_use(session, limit=MAX_TENANTS)]


def tenant_response(one: TenantUse, whole: Today, settings: Settings) -> TenantResponse:
    """A tenant with its share of what was asked for today."""
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
