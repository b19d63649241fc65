"""Responses stored by Idempotency-Key, so that a repeated request is executed once.

A request that is one transaction takes the key, does its work and stores the response in that transaction, so all three happen
or none. A request of several transactions (a bulk table) commits `take` first. While it runs, a concurrent request with the same
key is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.orm import Session

from imagefarm.errors import Conflict, RequestError
from imagefarm.store.dialects import per_dialect
from imagefarm.store.engine import Store, db_now
from imagefarm.store.models import Idempotency

STALE_S = 900.0
"""Seconds after which a request without a response counts as dead, and its key can be taken again."""
KEEP_S = 48 * 3600.0
"""Seconds for which a response is replayed."""
ANOTHER_BODY = "this Idempotency-Key came before with another body; use a new key for a new request"

TAKE = per_dialect(
    lambda insert_into: insert_into(Idempotency).values(created_at=db_now()).on_conflict_do_nothing().returning(Idempotency.key)
)
KEEP_WITH_WORK = per_dialect(lambda insert_into: insert_into(Idempotency).on_conflict_do_nothing().returning(Idempotency.key))
"""`take` and `keep` in one statement, for one-transaction work whose response is known beforehand. It returns no row if the key
exists."""
KEEP = (
    update(Idempotency)
    .where(Idempotency.tenant_id == bindparam("of_tenant"), Idempotency.key == bindparam("of_key"))
    .values(status=bindparam("new_status"), response=bindparam("new_response"))
)


class KeyReused(RequestError):
    """The key was used with another request."""

    code = "idempotency_key_reused"
    status = 422
    title = "This Idempotency-Key belongs to another request"


class StillRunning(Conflict):
    """The first request with this key has no response yet."""

    code = "still_running"
    title = "The first request with this key still runs"


@dataclass(frozen=True, slots=True)
class Stored:
    """The response of the first request: HTTP status and body."""

    status: int
    response: str


class KeyedResponse(NamedTuple):
    """A response to store under its Idempotency-Key: a row of the table `idempotency` without tenant and time."""

    key: str
    body_sha256: str
    status: int
    response: str


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The Idempotency-Key of a request and the digest of the request. Without a key every method does nothing."""

    key: str | None
    body_sha256: str = ""

    def take(self, session: Session, tenant_id: str) -> Stored | None:
        """Take the key in this transaction. Returns the stored response to replay, if there is one. See the function `take`."""
        return None if self.key is None else take(session, tenant_id, self.key, self.body_sha256)

    def answered(self, store: Store, tenant_id: str) -> Stored | None:
        """The stored response to replay, if there is one. Call it before preparations that a replay does not need."""
        if self.key is None:
            return None
        with store.read() as session:
            return answered(session, tenant_id, self.key, self.body_sha256)

    def keep(self, session: Session, tenant_id: str, status: int, response: str) -> None:
        """Store the response in this transaction."""
        if self.key is not None:
            keep(session, tenant_id, self.key, status, response)

    def with_work(self, status: int, response: str) -> KeyedResponse | None:
        """The values for a statement that does the work and stores the response together."""
        return None if self.key is None else KeyedResponse(self.key, self.body_sha256, status, response)

    def give_back(self, session: Session, tenant_id: str) -> None:
        """Free the key of a request that failed after `take` was committed."""
        if self.key is not None:
            give_back(session, tenant_id, self.key)


NO_KEY = IdempotencyKey(None)
"""A request without an Idempotency-Key."""


def take(session: Session, tenant_id: str, key: str, body_sha256: str) -> Stored | None:
    """Take the key in the caller's transaction. Returns None if the key was free, otherwise the response to replay.

    `body_sha256` identifies the whole request. Raises KeyReused if it differs from the first request's digest, and StillRunning
    if
    the first request has no response yet.
    """
    sql = session.connection()
    # on PostgreSQL this waits for a transaction that holds the same key; on SQLite writers are serialised anyway
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
    """The response to replay, if there is one. The key is not taken. Raises KeyReused if the first request differs."""
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
    """Store the response for replay, in the caller's transaction."""
    values = {"of_tenant": tenant_id, "of_key": key, "new_status": status, "new_response": response}
    session.connection().execute(KEEP, values)


def give_back(session: Session, tenant_id: str, key: str) -> None:
    """Free the key of a failed request, so that the request can be sent again."""
    session.execute(
        delete(Idempotency).where(Idempotency.tenant_id == tenant_id, Idempotency.key == key, Idempotency.status.is_(None))
    )


def forget_old(session: Session) -> int:
    """Delete responses that are too old to be replayed; return how many."""
    old = session.scalars(delete(Idempotency).where(Idempotency.created_at < db_now() - KEEP_S).returning(Idempotency.key))
    return len(old.all())
