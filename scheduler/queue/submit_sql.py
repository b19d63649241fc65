"""The two statements of a single submit: one reads everything that decides about the job, one writes everything.

A single submit is the most frequent request of a farm, so both are compiled once. They leave the same rows as
`scheduler.queue.admission.submit_jobs`, which writes many; a test compares them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, insert, literal_column, select, true
from sqlalchemy.orm import Session

from imagefarm.auth import KeyQuota
from imagefarm.settings import Settings
from imagefarm.states import JobState
from imagefarm.store import db_now
from imagefarm.store.audit import tell_after_commit
from imagefarm.store.compiled import CompiledStatement, autocommit
from imagefarm.store.idempotency import KEEP_WITH_WORK, KeyedResponse
from imagefarm.store.models import AssetUse, Backlog, Event, Idempotency, Job, Model, Tenant
from imagefarm.store.multi_insert import MultiInsert
from imagefarm.tenants import DAY_S
from scheduler.assets.store import uses_of
from scheduler.queue.limits import RECORD_USAGE, QueueUsage, check_limits_with_usage
from scheduler.queue.new_job import NewJob
from scheduler.queue.pending_reason import WORKERS, WaitContext
from scheduler.queue.transition import ADD_TO_BACKLOG

OWN = Backlog.tenant_id == bindparam("tenant_id")
CONTEXT = select(
    db_now().label("now"),
    select(Tenant.limits).where(Tenant.id == bindparam("tenant_id")).scalar_subquery().label("limits"),
    select(func.coalesce(func.sum(Backlog.queued), 0)).scalar_subquery().label("total"),
    select(func.coalesce(func.sum(Backlog.queued), 0)).where(OWN).scalar_subquery().label("own"),
    select(func.coalesce(func.sum(Backlog.running), 0)).where(OWN).scalar_subquery().label("running"),
    select(Model.cost_s).where(Model.name == bindparam("model")).scalar_subquery().label("cost_s"),
    select(Model.load_s).where(Model.name == bindparam("model")).scalar_subquery().label("load_s"),
    select(literal_column("1"))
    .select_from(Idempotency)
    .where(Idempotency.tenant_id == bindparam("tenant_id"), Idempotency.key == bindparam("key"))
    .scalar_subquery()
    .label("known"),
).subquery("context")
PRESENT = WORKERS.subquery("present")
READ_CONTEXT = CompiledStatement(select(CONTEXT, PRESENT).join_from(CONTEXT, PRESENT, true(), isouter=True))
"""Rows of CONTEXT, each joined with a row of WORKERS, which is null if there is no worker."""
CONTEXT_COLUMNS = len(CONTEXT.columns)


class OvertakenError(Exception):
    """Another request with the same Idempotency-Key has committed meanwhile: nothing may be written, and its response exists."""


class SubmitContext(NamedTuple):
    """Everything that decides about one job."""

    queue_usage: QueueUsage
    wait_context: WaitContext
    cost_s: float | None
    """Learned GPU-seconds of one default image of its model."""
    is_key_known: bool
    """Whether an earlier request had the same Idempotency-Key."""


def read_submit_context(session: Session, tenant_id: str, model: str, key: str | None) -> SubmitContext:
    """Read everything that decides about a job of that model."""
    sql = session.connection()
    with autocommit(sql):
        rows = READ_CONTEXT.run(sql, {"tenant_id": tenant_id, "model": model, "key": key or ""})
    now, limits, total, own, running, cost_s, load_s, known = rows[0][:CONTEXT_COLUMNS]
    workers = [row[CONTEXT_COLUMNS:] for row in rows if row[CONTEXT_COLUMNS] is not None]
    wait_context = WaitContext(now, limits or {}, int(running), load_s, workers)
    return SubmitContext(QueueUsage(limits or {}, int(total), int(own)), wait_context, cost_s, known is not None)


def check(session: Session, job: NewJob, context: SubmitContext, settings: Settings, quota: KeyQuota | None) -> NewJob:
    """The job as it will be stored. Raises LimitExceeded or InvalidRequest if it does not fit the limits."""
    now = context.wait_context.now
    check_limits_with_usage(session, [job], context.queue_usage, settings, now, quota=quota)
    return job.submitted(now, None if quota is None else quota.quota_id)


def write(session: Session, job: NewJob, keep: KeyedResponse | None) -> None:
    """Write a checked job with its counters, its audit event and its response.

    Uses the caller's transaction if it has begun; otherwise PostgreSQL commits this statement by itself. Raises OvertakenError;
    the
    transaction must then end without a commit.
    """
    tenant_id, now = job.tenant_id, job.created_at
    data = {"recipe_hash": job.recipe_hash, "model": job.model}
    usage = {"day": int(now // DAY_S), "images": job.count, "gpu_s": job.cost_s}
    is_queued, uses = job.state == JobState.QUEUED, uses_of(job.id, job.recipe)
    rows: list[dict[str, Any]] = [job.columns()]
    if keep is not None:
        rows.insert(0, {"tenant_id": tenant_id, "created_at": now, **keep._asdict()})
    rows += uses
    if is_queued:
        flow = {"model": job.model, "priority_class": job.priority_class, "tenant_id": tenant_id}
        rows.append({**flow, "queued": 1, "running": 0})
    rows += [{"tenant_id": counted_as, **usage} for counted_as in (tenant_id, job.quota_id) if counted_as is not None]
    rows.append({"kind": "job.submitted", "subject": job.id, "tenant_id": tenant_id, "data": data, "at": now})
    sql = session.connection()
    with autocommit(sql):
        if not _writes(keep is not None, len(uses), is_queued, job.quota_id is not None).run(sql, rows):
            raise OvertakenError
    tell_after_commit(session, [("job.submitted", job.id, tenant_id, data)])


@lru_cache(maxsize=64)
def _writes(keeps: bool, uses: int, is_queued: bool, counts_key: bool) -> MultiInsert:
    """What a submit writes: first its response, because a request that did not get the key may write nothing."""
    return MultiInsert(
        *[KEEP_WITH_WORK] * keeps,
        insert(Job),
        *[insert(AssetUse)] * uses,
        *[ADD_TO_BACKLOG] * is_queued,
        *[RECORD_USAGE] * (1 + counts_key),
        insert(Event),
    )
