"""Limits on submissions: images per day, queued and running jobs, pixels and steps. Every refusal names the limit, its value
and when to retry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, literal_column, select
from sqlalchemy.orm import Session

from imagefarm.auth import KeyQuota
from imagefarm.errors import FieldError, InvalidRequest, LimitExceeded
from imagefarm.settings import Settings
from imagefarm.states import WorkerState
from imagefarm.store.dialects import per_dialect
from imagefarm.store.models import Backlog, Job, Model, Tenant, Usage, Worker
from imagefarm.tenants import DAY_S
from scheduler.queue.new_job import NewJob

GUESSED_COST_S = 1.0
"""GPU-seconds of a job of a model that was never measured."""


KEY_QUEUED = select(func.count()).select_from(
    select(Job.id)
    .where(Job.quota_id == bindparam("quota_id"), Job.state.in_([literal_column("'held'"), literal_column("'queued'")]))
    .limit(bindparam("most"))
    .subquery()
)


def narrowed(limits: Mapping[str, Any], quota: KeyQuota | None) -> dict[str, Any]:
    """A tenant's limits, with pixels and steps no wider than the submitting key's."""
    found = dict(limits)
    for name in ("pixels", "steps"):
        if quota is not None and name in quota.limits:
            found[name] = min(quota.limits[name], found.get(name, quota.limits[name]))
    return found


def _record_usage(insert_into: Any) -> Any:
    statement = insert_into(Usage)
    return statement.on_conflict_do_update(
        index_elements=["tenant_id", "day"],
        set_={"images": Usage.images + statement.excluded.images, "gpu_s": Usage.gpu_s + statement.excluded.gpu_s},
    )


QUEUE_USAGE = select(
    select(Tenant.limits).where(Tenant.id == bindparam("tenant_id")).scalar_subquery(),
    select(func.coalesce(func.sum(Backlog.queued), 0)).scalar_subquery(),
    select(func.coalesce(func.sum(Backlog.queued), 0)).where(Backlog.tenant_id == bindparam("tenant_id")).scalar_subquery(),
)
RECORD_USAGE = per_dialect(_record_usage)


def tenant_limits(session: Session, tenant_id: str, quota: KeyQuota | None = None) -> dict[str, Any]:
    """The tenant's own limits: any of queued, running, images_per_day, pixels, steps.

    Limits of pixels and steps are at most those of the submitting key, `quota`.
    """
    return narrowed(session.scalar(select(Tenant.limits).where(Tenant.id == tenant_id)) or {}, quota)


def check_limits(session: Session, jobs: Sequence[NewJob], settings: Settings, now: float, *, quota: KeyQuota | None) -> None:
    """Check jobs of one tenant against the limits of the farm, of the tenant and of the submitting key, `quota`.

    Raises InvalidRequest for a job that is too large for the tenant, LimitExceeded for one over a quota.
    """
    check_limits_with_usage(session, jobs, _read_queue_usage(session, jobs[0].tenant_id), settings, now, quota=quota)


def check_limits_with_usage(
    session: Session,
    jobs: Sequence[NewJob],
    queue_usage: QueueUsage,
    settings: Settings,
    now: float,
    *,
    quota: KeyQuota | None,
) -> None:
    """As `check_limits`, with a known queue usage of the tenant."""
    check_size(jobs, narrowed(queue_usage.limits, quota))
    _check_queue(session, queue_usage, len(jobs), settings, quota=quota)
    check_day(session, jobs[0].tenant_id, sum(job.count for job in jobs), queue_usage.limits, now, quota=quota)


def check_size(jobs: Sequence[NewJob], limits: dict[str, Any]) -> None:
    """Raise InvalidRequest for a job that is larger than its tenant may submit."""
    max_pixels, max_steps = limits.get("pixels"), limits.get("steps")
    if max_pixels is None and max_steps is None:
        return
    for job in jobs:
        recipe = job.recipe
        if max_pixels is not None and recipe["width"] * recipe["height"] > max_pixels:
            detail = f"{recipe['width']}x{recipe['height']} is more than the {max_pixels} pixels you may ask for"
            raise InvalidRequest([FieldError(field="width", detail=detail, remedy="ask for a smaller picture", row=job.row)])
        if max_steps is not None and recipe["steps"] > max_steps:
            detail = f"{recipe['steps']} is more than the {max_steps} steps you may ask for"
            raise InvalidRequest([FieldError(field="steps", detail=detail, remedy=f"use {max_steps}", row=job.row)])


def check_queue(session: Session, tenant_id: str, more: int, settings: Settings, *, quota: KeyQuota | None) -> None:
    """Raise LimitExceeded if `more` jobs would overfill the queue of the farm, of the tenant or of the submitting key."""
    _check_queue(session, _read_queue_usage(session, tenant_id), more, settings, quota=quota)


class QueueUsage(NamedTuple):
    """A tenant's own limits, and the waiting jobs of the whole farm and of the tenant."""

    limits: dict[str, Any]
    total: int
    own: int


def _read_queue_usage(session: Session, tenant_id: str) -> QueueUsage:
    limits, total, own = session.connection().execute(QUEUE_USAGE, {"tenant_id": tenant_id}).one()
    return QueueUsage(limits or {}, total, own)


def _check_queue(session: Session, queue_usage: QueueUsage, more: int, settings: Settings, *, quota: KeyQuota | None) -> None:
    limits, total, own = queue_usage
    own_limit, name = settings.max_queued_per_tenant, "max_queued_per_tenant"
    if (given := int(limits.get("queued", own_limit))) < own_limit:
        own_limit, name = given, "queued"
    if total + more > settings.max_queued:
        raise LimitExceeded(
            f"the farm's queue is full: {_room(total, more, 'max_queued', settings.max_queued)}",
            limit="max_queued",
            value=settings.max_queued,
            retry_after=expected_wait_s(session),
            status=503,
        )
    _check_key_queue(session, more, quota)
    if own + more > own_limit:
        raise LimitExceeded(
            f"your queue is full: {_room(own, more, name, own_limit)}",
            limit=name,
            value=own_limit,
            retry_after=expected_wait_s(session),
        )


def _room(waiting: int, more: int, name: str, most: int) -> str:
    """Which limit leaves too little room: its name as configured (with `key.` before a key's own), and the remedy."""
    words = f"{waiting} of {most} jobs wait, and {more} more do not fit ({name} = {most})"
    return f"{words}; send fewer at a time" if more > most > 0 else words


def _check_key_queue(session: Session, more: int, quota: KeyQuota | None) -> None:
    if quota is None or "queued" not in quota.limits:
        return
    most = int(quota.limits["queued"])
    own = session.connection().scalar(KEY_QUEUED, {"quota_id": quota.quota_id, "most": most + 1}) or 0
    if own + more > most:
        raise LimitExceeded(
            f"the queue of this key is full: {_room(min(own, most), more, 'key.queued', most)}",
            limit="key.queued",
            value=most,
            retry_after=expected_wait_s(session),
        )


def check_day(session: Session, tenant_id: str, more: int, limits: dict[str, Any], now: float, *, quota: KeyQuota | None) -> None:
    """Raise LimitExceeded if `more` images would exceed the daily quota of the tenant or of the submitting key."""
    asked: list[tuple[str, str, str, Mapping[str, Any]]] = [("your tenant", "images_per_day", tenant_id, limits)]
    if quota is not None:
        asked.append(("this key", "key.images_per_day", quota.quota_id, quota.limits))
    for whose, limit, quota_id, own in asked:
        most = own.get("images_per_day")
        if most is None:
            continue
        used = session.scalar(select(Usage.images).where(Usage.tenant_id == quota_id, Usage.day == int(now // DAY_S))) or 0
        if used + more > most:
            raise LimitExceeded(
                f"{whose} may ask for {most} pictures a day (UTC); {used} were asked for today, and {more} more do not fit",
                limit=limit,
                value=float(most),
                retry_after=DAY_S - now % DAY_S,
            )


def record_usage(session: Session, tenant_id: str, now: float, images: int, gpu_s: float, *, quota_id: str | None) -> None:
    """Add to today's usage of the tenant, and of the key with that quota, in the transaction that writes the jobs."""
    sql = session.connection()
    row = {"tenant_id": tenant_id, "day": int(now // DAY_S), "images": images, "gpu_s": gpu_s}
    sql.execute(RECORD_USAGE[sql.dialect.name], row)
    if quota_id is not None:
        sql.execute(RECORD_USAGE[sql.dialect.name], row | {"tenant_id": quota_id})


def expected_wait_s(session: Session) -> float:
    """Estimated seconds until the waiting jobs are rendered: predicted GPU-seconds over available workers, from 1 s to 1 h."""
    lanes = session.execute(
        select(func.sum(Backlog.queued), func.coalesce(Model.cost_s, GUESSED_COST_S))
        .join(Model, Model.name == Backlog.model, isouter=True)
        .group_by(Model.cost_s)
    ).all()
    takes_work = (Worker.state != WorkerState.OFFLINE, Worker.desired_state == WorkerState.READY)
    workers = session.scalar(select(func.count()).select_from(Worker).where(*takes_work)) or 0
    return min(3600.0, max(1.0, sum(number * cost for number, cost in lanes) / max(1, workers)))
