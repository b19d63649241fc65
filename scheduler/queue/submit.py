"""One job submitted by itself: one look at all that decides, then one write of all that is kept.

The same as `admission.submit` does for many (a test holds the two together); a single submit is what a farm is asked most
often, so that it is made of compiled statements and of no more of them than must be.
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from sqlalchemy import bindparam, func, insert, literal_column, select, true
from sqlalchemy.orm import Session

from imagefarm.settings import Settings
from imagefarm.states import JobState
from imagefarm.store import db_now
from imagefarm.store.audit import tell_after_commit
from imagefarm.store.compiled import CompiledStatement, autocommit
from imagefarm.store.idempotency import KEEP_WITH_WORK
from imagefarm.store.models import AssetUse, Backlog, Event, Idempotency, Job, Model, Tenant
from imagefarm.store.multi_insert import MultiInsert
from imagefarm.tenants import DAY_S
from scheduler.assets.store import uses_of
from scheduler.queue.limits import CALLING_KEY, RECORD_USAGE, QueueUsage, check_limits_with_usage
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
"""Rows of CONTEXT, each with a row of WORKERS; one with nothing in it if there is no worker."""
CONTEXT_COLUMNS = len(CONTEXT.columns)
NOT_YET: dict[str, Any] = {
    "from_image": None,
    "error_code": None,
    "error_detail": None,
    "started_at": None,
    "finished_at": None,
}


class OvertakenError(Exception):
    """Another request with the same Idempotency-Key has committed meanwhile: nothing may be written, and its answer is there."""


class SubmitContext(NamedTuple):
    """All that decides about one job."""

    queue_usage: QueueUsage
    wait_context: WaitContext
    cost_s: float | None
    """Learnt GPU-seconds of one default image of its model."""
    is_key_known: bool
    """Whether a request with the same Idempotency-Key came before."""


class StoredResponse(NamedTuple):
    """An answer, to be kept under its Idempotency-Key together with the work."""

    key: str
    body_sha256: str
    status: int
    response: str


def read_submit_context(session: Session, tenant_id: str, model: str, key: str | None) -> SubmitContext:
    """Read all that decides about a job of that model."""
    sql = session.connection()
    with autocommit(sql):
        rows = READ_CONTEXT.run(sql, {"tenant_id": tenant_id, "model": model, "key": key or ""})
    now, limits, total, own, running, cost_s, load_s, known = rows[0][:CONTEXT_COLUMNS]
    workers = [row[CONTEXT_COLUMNS:] for row in rows if row[CONTEXT_COLUMNS] is not None]
    wait_context = WaitContext(now, limits or {}, int(running), load_s, workers)
    return SubmitContext(QueueUsage(limits or {}, int(total), int(own)), wait_context, cost_s, known is not None)


def validate(session: Session, row: dict[str, Any], context: SubmitContext, settings: Settings) -> Job:
    """The job as it will be, though no row yet. Raises LimitExceeded or InvalidRequest if it does not fit the limits."""
    check_limits_with_usage(session, [row], context.queue_usage, settings, context.wait_context.now)
    calling_key = CALLING_KEY.get()
    row["quota_id"] = calling_key.quota_id if calling_key is not None else None
    expires_in = row.pop("expires_in")
    row["expires_at"] = None if expires_in is None else context.wait_context.now + expires_in
    row["created_at"] = context.wait_context.now
    return cast("Job", SimpleNamespace(**row, **NOT_YET))


def write(session: Session, row: dict[str, Any], keep: StoredResponse | None) -> None:
    """Write a checked job with its counters, its audit event and its answer.

    In the caller's transaction, if it has begun; else PostgreSQL commits this by itself. Raises OvertakenError, and then the
    transaction must end without a commit.
    """
    tenant_id, now = row["tenant_id"], row["created_at"]
    data = {"recipe_hash": row["recipe_hash"], "model": row["model"]}
    usage = {"day": int(now // DAY_S), "images": row["count"], "gpu_s": row["cost_s"]}
    is_queued, quota_id, uses = row["state"] == JobState.QUEUED, row["quota_id"], uses_of(row)
    rows: list[dict[str, Any]] = [row]
    if keep is not None:
        rows.insert(0, {"tenant_id": tenant_id, "created_at": now, **keep._asdict()})
    rows += uses
    if is_queued:
        flow = {"model": row["model"], "priority_class": row["priority_class"], "tenant_id": tenant_id}
        rows.append({**flow, "queued": 1, "running": 0})
    rows += [{"tenant_id": who, **usage} for who in (tenant_id, quota_id) if who is not None]
    rows.append({"kind": "job.submitted", "subject": row["id"], "tenant_id": tenant_id, "data": data, "at": now})
    sql = session.connection()
    with autocommit(sql):
        if not _writes(keep is not None, len(uses), is_queued, quota_id is not None).run(sql, rows):
            raise OvertakenError
    tell_after_commit(session, [("job.submitted", row["id"], tenant_id, data)])


@lru_cache(maxsize=64)
def _writes(keeps: bool, uses: int, is_queued: bool, counts_key: bool) -> MultiInsert:
    """What a submit writes: first its answer, since who has not the key may write nothing."""
    return MultiInsert(
        *[KEEP_WITH_WORK] * keeps,
        insert(Job),
        *[insert(AssetUse)] * uses,
        *[ADD_TO_BACKLOG] * is_queued,
        *[RECORD_USAGE] * (1 + counts_key),
        insert(Event),
    )
