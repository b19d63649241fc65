"""Tenants: their limits, which admins set within the farm's limits, and their current use of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from imagefarm.auth import check_limit_names
from imagefarm.errors import NotFound
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append
from imagefarm.store.models import Backlog, Tenant, Usage

DAY_S = 86400
"""Length of a day in `Usage.day`. Days are counted on the database's clock, in UTC."""
MAX_TENANTS = 200
"""Number of tenants that one response or page lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantUse:
    """A tenant: its own limits, its jobs in the queue, and the images and GPU-seconds that it submitted today (UTC)."""

    id: str
    name: str
    weight: float
    limits: dict[str, int]
    queued: int
    running: int
    images_today: int
    gpu_s_today: float


class Today(NamedTuple):
    """Today's submissions of all tenants: predicted GPU-seconds, and the total weight of the tenants that submitted."""

    gpu_s: float
    weight: float


def today(session: Session) -> Today:
    """The sums of today's submissions."""
    sums = select(func.coalesce(func.sum(Usage.gpu_s), 0.0), func.coalesce(func.sum(Tenant.weight), 0.0))
    of_today = sums.join(Tenant, Tenant.id == Usage.tenant_id).where(Usage.day == _day(session), Usage.gpu_s > 0)
    return Today(*session.execute(of_today).one())


def tenants_in_use(session: Session, *, only: str | None = None, limit: int | None = None) -> list[TenantUse]:
    """The tenants ordered by today's GPU-seconds, highest first, at most `limit`; with `only`, the tenant with that id."""
    waiting = (
        select(Backlog.tenant_id, func.sum(Backlog.queued).label("queued"), func.sum(Backlog.running).label("running"))
        .group_by(Backlog.tenant_id)
        .subquery()
    )
    found = (
        select(Tenant, waiting.c.queued, waiting.c.running, Usage.images, Usage.gpu_s)
        .join(waiting, waiting.c.tenant_id == Tenant.id, isouter=True)
        .join(Usage, (Usage.tenant_id == Tenant.id) & (Usage.day == _day(session)), isouter=True)
        .order_by(func.coalesce(Usage.gpu_s, 0.0).desc(), func.coalesce(waiting.c.queued, 0).desc(), Tenant.name)
        .limit(limit)
    )
    if only is not None:
        found = found.where(Tenant.id == only)
    return [
        TenantUse(
            id=row.Tenant.id,
            name=row.Tenant.name,
            weight=row.Tenant.weight,
            limits=row.Tenant.limits,
            queued=row.queued or 0,
            running=row.running or 0,
            images_today=row.images or 0,
            gpu_s_today=row.gpu_s or 0.0,
        )
        for row in session.execute(found)
    ]


def limit_tenant(store: Store, name: str, limits: Mapping[str, int | None], *, by: str = "operator") -> TenantUse:
    """Set limits of the tenant with that name or id. None removes a limit; limits that are not given stay as they are.

    The names are in `imagefarm.auth.LIMITS`. The limits apply to new submits and new claims, not to jobs that are already queued
    or
    running. Raises NotFound, and InvalidRequest for an unknown or invalid limit.
    """
    check_limit_names({limit: 0 if value is None else value for limit, value in limits.items()})
    with store.write() as session:
        tenant_id = session.scalar(select(Tenant.id).where((Tenant.name == name) | (Tenant.id == name)).limit(1))
        if tenant_id is None:
            raise NotFound(f"no tenant {name[:64]!r}; the first key or user of a tenant creates it")
        tenant = session.get_one(Tenant, tenant_id, with_for_update=True)
        before = dict(tenant.limits)
        after = {limit: value for limit, value in {**before, **limits}.items() if value is not None}
        if after != before:
            tenant.limits = after
            append(session, "tenant.limited", tenant_id, tenant_id, {"by": by, "before": before, "after": after})
            session.flush()
        [info] = tenants_in_use(session, only=tenant_id)
    return info


def count_tenants(session: Session) -> int:
    """The number of tenants."""
    return session.scalar(select(func.count()).select_from(Tenant)) or 0


def tenant_names(session: Session, limit: int) -> list[tuple[str, str]]:
    """Id and name of the tenants, by name."""
    return [
        (tenant_id, name)
        for tenant_id, name in session.execute(select(Tenant.id, Tenant.name).order_by(Tenant.name).limit(limit))
    ]


def _day(session: Session) -> int:
    return int((session.scalar(select(db_now())) or 0.0) // DAY_S)
