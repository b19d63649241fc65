"""What the caller may ask for, and what of it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from sqlalchemy import func, literal_column, select
from sqlalchemy.orm import Session

from api.http.context import AppContext
from api.http.request_limit import WINDOW_S, present_window
from api.http.routes import Routes
from api.http.schemas import ResponseModel, Time
from imagefarm.auth import Caller, Scope
from imagefarm.states import JobState
from imagefarm.store import db_now
from imagefarm.store.models import Backlog, Job, Tenant, Usage
from imagefarm.tenants import DAY_S

routes = Routes(tag="queue")


class Allowance(ResponseModel):
    """A limit and what is used of it."""

    limit: int | None = Field(description="null: no limit of this kind")
    used: int | None = Field(description="null where it is not counted: for a key that has no such limit")


class Allowances(ResponseModel):
    """Limits of a tenant, or of a key within its tenant's."""

    queued: Allowance
    running: Allowance
    images_per_day: Allowance
    pixels: int | None = Field(description="Width times height of a picture at most")
    steps: int | None


class RequestAllowance(ResponseModel):
    """Requests in the present minute."""

    limit: int | None = Field(description="null: no limit")
    used: int | None = Field(description="With this one; null while they are not counted")
    window_s: int
    resets_in_s: int | None = Field(description="Seconds until the count begins anew")


class LimitsResponse(ResponseModel):
    """All limits that hold for whoever asks."""

    tenant: Allowances
    key: Allowances | None = Field(description="null for a key without limits of its own, and for whoever asks without a key")
    requests: RequestAllowance
    day_ends_at: Time = Field(description="When the count of pictures begins anew")
    max_batch_rows: int
    max_body_bytes: int
    max_table_bytes: int


@routes.get("/api/v1/limits", scope=Scope.READ, response=LimitsResponse)
def get_limits(app_context: AppContext, caller: Caller) -> LimitsResponse:
    """See the limits that hold for you, with what is used of them now."""
    settings = app_context.settings
    with app_context.store.read() as session:
        now = session.scalar(select(db_now())) or 0.0
        day = int(now // DAY_S)
        tenant = _of_tenant(session, app_context, caller.tenant_id, day)
        key = _of_key(session, caller.quota_id, caller.limits, day) if caller.quota_id and caller.limits else None
    window = present_window()
    return LimitsResponse(
        tenant=tenant,
        key=key,
        requests=RequestAllowance(
            limit=settings.requests_per_minute or None,
            used=None if window is None else window.used,
            window_s=WINDOW_S,
            resets_in_s=None if window is None else window.left_s,
        ),
        day_ends_at=float((day + 1) * DAY_S),
        max_batch_rows=settings.max_batch_rows,
        max_body_bytes=settings.max_body_bytes,
        max_table_bytes=settings.max_table_bytes,
    )


def _of_tenant(session: Session, app_context: AppContext, tenant_id: str, day: int) -> Allowances:
    own = session.scalar(select(Tenant.limits).where(Tenant.id == tenant_id)) or {}
    sums = select(func.coalesce(func.sum(Backlog.queued), 0), func.coalesce(func.sum(Backlog.running), 0))
    queued, running = session.execute(sums.where(Backlog.tenant_id == tenant_id)).one()
    queue, run = app_context.settings.max_queued_per_tenant, app_context.settings.max_running_per_tenant
    return Allowances(
        queued=Allowance(limit=min(own.get("queued", queue), queue), used=queued),
        running=Allowance(limit=min(own.get("running", run), run), used=running),
        images_per_day=Allowance(limit=own.get("images_per_day"), used=_asked_for(session, tenant_id, day)),
        pixels=own.get("pixels"),
        steps=own.get("steps"),
    )


def _of_key(session: Session, quota_id: str, own: Mapping[str, Any], day: int) -> Allowances:
    """A key's jobs are counted one by one, no further than its limit: more than that can hardly be there."""

    def jobs(limit: str, *states: JobState) -> Allowance:
        most = own.get(limit)
        if most is None:
            return Allowance(limit=None, used=None)
        those = Job.state.in_([literal_column(f"'{state.value}'") for state in states])  # as the partial index has them
        some = select(Job.id).where(Job.quota_id == quota_id, those).limit(most + 1).subquery()
        return Allowance(limit=most, used=session.scalar(select(func.count()).select_from(some)))

    return Allowances(
        queued=jobs("queued", JobState.HELD, JobState.QUEUED),
        running=jobs("running", JobState.RUNNING),
        images_per_day=Allowance(limit=own.get("images_per_day"), used=_asked_for(session, quota_id, day)),
        pixels=own.get("pixels"),
        steps=own.get("steps"),
    )


def _asked_for(session: Session, quota_id: str, day: int) -> int:
    return session.scalar(select(Usage.images).where(Usage.tenant_id == quota_id, Usage.day == day)) or 0
