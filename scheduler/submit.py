"""One job submitted by itself: one look at all that decides, then all that is written, each sent in one go.

The same as `admission.submit` does for many; a single submit is what a farm is asked most often, so that it is made of
prepared statements and of no more of them than must be.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from sqlalchemy import bindparam, func, insert, literal_column, select
from sqlalchemy.orm import Session

from imagefarm.settings import Settings
from imagefarm.states import JobState
from imagefarm.store import db_now
from imagefarm.store.audit import tell_after_commit
from imagefarm.store.idempotency import KEEP_WITH_WORK
from imagefarm.store.models import Backlog, Event, Idempotency, Job, Model, Tenant
from imagefarm.store.prepared import Prepared, pipelined
from scheduler.assets import record_use
from scheduler.limits import ASKING, DAY_S, RECORD_USAGE, Standing, check_standing
from scheduler.transition import ADD_TO_BACKLOG
from scheduler.why import WORKERS, Seen

OWN = Backlog.tenant_id == bindparam("tenant_id")
LOOK = Prepared(
    select(
        db_now(),
        select(Tenant.limits).where(Tenant.id == bindparam("tenant_id")).scalar_subquery(),
        select(func.coalesce(func.sum(Backlog.queued), 0)).scalar_subquery(),
        select(func.coalesce(func.sum(Backlog.queued), 0)).where(OWN).scalar_subquery(),
        select(func.coalesce(func.sum(Backlog.running), 0)).where(OWN).scalar_subquery(),
        select(Model.cost_s).where(Model.name == bindparam("model")).scalar_subquery(),
        select(Model.load_s).where(Model.name == bindparam("model")).scalar_subquery(),
        select(literal_column("1"))
        .select_from(Idempotency)
        .where(Idempotency.tenant_id == bindparam("tenant_id"), Idempotency.key == bindparam("key"))
        .scalar_subquery(),
    )
)
LOOK_AT_WORKERS = Prepared(WORKERS)
INSERT_JOB = Prepared(insert(Job))
INSERT_EVENT = Prepared(insert(Event))
COUNT_QUEUED = Prepared(ADD_TO_BACKLOG)
COUNT_USAGE = Prepared(RECORD_USAGE)
KEEP_ANSWER = Prepared(KEEP_WITH_WORK)
NOT_YET: dict[str, Any] = {
    "from_image": None,
    "error_code": None,
    "error_detail": None,
    "started_at": None,
    "finished_at": None,
}


class OvertakenError(Exception):
    """Another request with the same Idempotency-Key has committed meanwhile: nothing may be written, and its answer is there."""


class Look(NamedTuple):
    """All that decides about one job."""

    standing: Standing
    seen: Seen
    cost_s: float | None
    """Learnt GPU-seconds of one default image of its model."""
    is_key_known: bool
    """Whether a request with the same Idempotency-Key came before."""


class KeptAnswer(NamedTuple):
    """An answer, to be kept under its Idempotency-Key together with the work."""

    key: str
    body_sha256: str
    status: int
    answer: str


def look(session: Session, tenant_id: str, model: str, key: str | None) -> Look:
    """Look at all that decides about a job of that model."""
    sql = session.connection()
    with pipelined(sql):
        standing = LOOK.send(sql, {"tenant_id": tenant_id, "model": model, "key": key or ""})
        workers = LOOK_AT_WORKERS.send(sql)
        now, limits, total, own, running, cost_s, load_s, known = standing.rows()[0]
        seen = Seen(now, limits or {}, int(running), load_s, workers.rows())
    return Look(Standing(limits or {}, int(total), int(own)), seen, cost_s, known is not None)


def check(session: Session, row: dict[str, Any], looked: Look, settings: Settings) -> Job:
    """The job as it will be, though no row yet. Raises LimitExceeded or InvalidRequest if it does not fit the limits."""
    check_standing(session, [row], looked.standing, settings, looked.seen.now)
    asking = ASKING.get()
    row["limited_by"] = asking.account if asking is not None else None
    expires_in = row.pop("expires_in")
    row["expires_at"] = None if expires_in is None else looked.seen.now + expires_in
    row["created_at"] = looked.seen.now
    return cast("Job", SimpleNamespace(**row, **NOT_YET))


def write(session: Session, row: dict[str, Any], keep: KeptAnswer | None) -> None:
    """Write a checked job with its counters, its audit event and its answer, in the caller's transaction.

    Raises OvertakenError, and then the transaction must end without a commit.
    """
    sql = session.connection()
    tenant_id, now = row["tenant_id"], row["created_at"]
    data = {"recipe_hash": row["recipe_hash"], "model": row["model"]}
    usage = {"day": int(now // DAY_S), "images": row["count"], "gpu_s": row["cost_s"]}
    with pipelined(sql):
        kept = None
        if keep is not None:
            kept = KEEP_ANSWER.send(sql, {"tenant_id": tenant_id, "created_at": now, **keep._asdict()})
        INSERT_JOB.send(sql, row)
        if row["state"] == JobState.QUEUED:
            flow = {"model": row["model"], "priority_class": row["priority_class"], "tenant_id": tenant_id}
            COUNT_QUEUED.send(sql, {**flow, "queued": 1, "running": 0})
        COUNT_USAGE.send(sql, {"tenant_id": tenant_id, **usage})
        if row["limited_by"] is not None:
            COUNT_USAGE.send(sql, {"tenant_id": row["limited_by"], **usage})
        INSERT_EVENT.send(sql, {"kind": "job.submitted", "subject": row["id"], "tenant_id": tenant_id, "data": data, "at": now})
        if kept is not None and not kept.rows():
            raise OvertakenError
    record_use(session, [row])
    tell_after_commit(session, [("job.submitted", row["id"], tenant_id, data)])
