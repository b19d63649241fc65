"""The caller's limits and their current use."""

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
    """A limit and its current use."""

    limit: int | None = Field(description="null: no such limit")
    used: int | None = Field(description="null if not counted: for a key without such a limit")


class Allowances(ResponseModel):
    """Limits of a tenant, or of a key within its tenant's."""

    queued: Allowance
    running: Allowance
    images_per_day: Allowance
    pixels: int | None = Field(description="Largest width times height of an image")
    steps: int | None


class RequestAllowance(ResponseModel):
    """Requests in the current minute."""

    limit: int | None = Field(description="null: no limit")
    used: int | None = Field(description="Including this request; null while requests are not counted")
    window_s: int
    resets_in_s: int | None = Field(description="Seconds until the count restarts")


class LimitsResponse(ResponseModel):
    """All limits that apply to the caller."""

    tenant: Allowances
    key: Allowances | None = Field(description="null for a key without its own limits, and for a caller without a key")
    requests: RequestAllowance
    day_ends_at: Time = Field(description="When the count of images restarts")
    max_batch_rows: int
    max_body_bytes: int
    max_table_bytes: int


@routes.get("/api/v1/limits", scope=Scope.READ, response=LimitsResponse)
def get_limits(app_context: AppContext, caller: Caller) -> LimitsResponse:
    """Get your limits and their current use."""
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
    """A key's limits and use. Its jobs are counted one by one, up to one above the limit, so the count stays cheap."""

    def jobs(limit: str, *states: JobState) -> Allowance:
        most = own.get(limit)
        if most is None:
            return Allowance(limit=None, used=None)
        # literals, as in the condition of the partial index
        those = Job.state.in_([literal_column(f"'{state.value}'") for state in states])
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
