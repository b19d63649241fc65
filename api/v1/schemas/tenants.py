"""Tenants as JSON: queues, limits, use today and share."""

from __future__ import annotations

from pydantic import Field
from sqlalchemy.orm import Session

from api.http.schemas import Body, ResponseModel
from api.v1.schemas.keys import KeyLimits
from imagefarm.settings import Settings
from imagefarm.tenants import MAX_TENANTS, TenantUse, Today, tenants_in_use, today


class TenantResponse(ResponseModel):
    """A tenant: its weight, its queued and running jobs, and what it asked for today (UTC)."""

    id: str
    name: str
    weight: float
    limits: dict[str, int] = Field(description="The tenant's own limits; the farm's apply too")
    queued: int
    running: int
    images_today: int
    images_per_day: int | None = Field(description="The daily limit; null without one")
    max_queued: int = Field(description="The smaller of the tenant's and the farm's limit")
    max_running: int = Field(description="The smaller of the tenant's and the farm's limit")
    pixels: int | None = Field(description="Largest width times height of an image; null without a limit")
    steps: int | None = Field(description="Most steps of an image; null without a limit")
    gpu_seconds_today: float = Field(description="Predicted GPU-seconds of the jobs submitted today")
    share: float = Field(description="The tenant's part of all GPU-seconds asked for today, 0 to 1")
    fair_share: float = Field(description="The tenant's part by weight among the tenants active today, 0 to 1")


class TenantLimits(KeyLimits):
    """The limits of a tenant. A number sets a limit, null removes it, a field that is left out stays unchanged."""


class TenantChange(Body):
    """The changes to a tenant."""

    limits: TenantLimits


def tenant_responses(session: Session, settings: Settings) -> list[TenantResponse]:
    """Return the tenants, ordered by what they asked for today."""
    whole = today(session)
    return [tenant_response(one, whole, settings) for one in tenants_in_use(session, limit=MAX_TENANTS)]


def tenant_response(one: TenantUse, whole: Today, settings: Settings) -> TenantResponse:
    """Convert a tenant to JSON, with its share of all that was asked for today."""
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
