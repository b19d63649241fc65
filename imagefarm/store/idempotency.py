"""Answers kept by Idempotency-Key, so that a request sent twice is done once.

Work that is one transaction takes the key, works and keeps the answer in it: either all of it happened or nothing did. Work
of many transactions (a bulk table) commits `take` first; who comes meanwhile with the same key is told that it still runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.orm import Session

from imagefarm.errors import Conflict, RequestError
from imagefarm.store.dialects import per_dialect
from imagefarm.store.engine import db_now
from imagefarm.store.models import Idempotency

STALE_S = 900.0
"""A request that has run so long without an answer died; its key may be taken again."""
KEEP_S = 48 * 3600.0
"""How long an answer is replayed."""
ANOTHER_BODY = "this Idempotency-Key came before with another body; use a new key for a new request"

TAKE = per_dialect(
    lambda insert_into: insert_into(Idempotency).values(created_at=db_now()).on_conflict_do_nothing().returning(Idempotency.key)
)
KEEP_WITH_WORK = per_dialect(lambda insert_into: insert_into(Idempotency).on_conflict_do_nothing().returning(Idempotency.key))
"""`take` and `keep` in one, for work of one transaction that knows its answer beforehand; no row: another was first."""
KEEP = (
    update(Idempotency)
    .where(Idempotency.tenant_id == bindparam("of_tenant"), Idempotency.key == bindparam("of_key"))
    .values(status=bindparam("new_status"), response=bindparam("new_response"))
)


class KeyReused(RequestError):
    """The key came before with another request."""

    code = "idempotency_key_reused"
    status = 422
    title = "This Idempotency-Key belongs to another request"


class StillRunning(Conflict):
    """The first request with this key has not been answered yet."""

    code = "still_running"
    title = "The first request with this key still runs"


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer of the first request: HTTP status and body."""

    status: int
    response: str


def take(session: Session, tenant_id: str, key: str, body_sha256: str) -> Stored | None:
    """Take the key in the caller's transaction; None means it is the caller's now, else here is the answer to replay.

    `body_sha256` stands for the whole request. Raises KeyReused if it differs from the first one's, StillRunning if that has no
    answer yet.
    """
    sql = session.connection()
    # on PostgreSQL this waits for a transaction that holds the same key; on SQLite writers take turns anyway
    taken = sql.execute(TAKE[sql.dialect.name], {"tenant_id": tenant_id, "key": key, "body_sha256": body_sha256}).first()
    if taken is not None:
        return None
    row = session.execute(
        select(
            Idempotency.body_sha256, Idempotency.status, Idempotency.response, (db_now() - Idempotency.created_at).label("age")
        )
        .where(Idempotency.tenant_id == tenant_id, Idempotency.key == key)
        .with_for_update()
    ).one()
    if row.age > (KEEP_S if row.status is not None else STALE_S):
        session.execute(
            update(Idempotency)
            .where(Idempotency.tenant_id == tenant_id, Idempotency.key == key)
            .values(body_sha256=body_sha256, status=None, response=None, created_at=db_now())
        )
        return None
    if row.body_sha256 != body_sha256:
        raise KeyReused(ANOTHER_BODY)
    if row.status is None:
        raise StillRunning("the first request with this Idempotency-Key still runs; ask again in a moment")
    return Stored(row.status, row.response or "")


def answered(session: Session, tenant_id: str, key: str, body_sha256: str) -> Stored | None:
    """The answer to replay, if there is one; the key is not taken. Raises KeyReused if the first request was another."""
    asked = select(Idempotency.body_sha256, Idempotency.status, Idempotency.response).where(
        Idempotency.tenant_id == tenant_id,
        Idempotency.key == key,
        Idempotency.status.is_not(None),
        Idempotency.created_at >= db_now() - KEEP_S,
    )
    row = session.execute(asked).first()
    if row is None:
        return None
    if row.body_sha256 != body_sha256:
        raise KeyReused(ANOTHER_BODY)
    return Stored(row.status, row.response or "")


def keep(session: Session, tenant_id: str, key: str, status: int, response: str) -> None:
    """Keep the answer to replay, in the caller's transaction."""
    values = {"of_tenant": tenant_id, "of_key": key, "new_status": status, "new_response": response}
    session.connection().execute(KEEP, values)


def give_back(session: Session, tenant_id: str, key: str) -> None:
    """Free a key whose request failed: it may be sent again, mended or not."""
    session.execute(
        delete(Idempotency).where(Idempotency.tenant_id == tenant_id, Idempotency.key == key, Idempotency.status.is_(None))
    )


def forget_old(session: Session) -> int:
    """Drop answers that are too old to be asked for; return how many."""
    old = session.scalars(delete(Idempotency).where(Idempotency.created_at < db_now() - KEEP_S).returning(Idempotency.key))
    return len(old.all())
