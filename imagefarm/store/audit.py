"""The audit: append-only events, sealed into a hash chain.

An event is written in the transaction of the change that it records. Chaining in that transaction would serialise all writers,
so the sweep seals the events later. It takes the events without a position in the chain, in the order of their ids, and gives
each `seq` and `hash = SHA-256(previous hash + canonical JSON of the row)`. Events contain no personal text: they refer to prompts
by `recipe_hash`, so erasing a prompt keeps the chain valid.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from imagefarm.store.bulk_insert import insert_many
from imagefarm.store.compiled import CompiledStatement
from imagefarm.store.engine import COMMITTED_EVENTS, connection_of, db_now
from imagefarm.store.models import Event

GENESIS = "0" * 64
NOW = select(db_now())
APPEND = insert(Event).values(at=db_now())
APPEND_AT = CompiledStatement(insert(Event))
FEW = 4
"""Smallest number of events that are inserted as one JSON value. Fewer events are inserted one by one, which is faster."""


@dataclass(frozen=True, slots=True)
class ChainReport:
    """The result of `verify`. `broken_at` is the first seq whose hash does not follow from the previous event; None if there is
    none."""

    sealed: int
    unsealed: int
    head: str
    broken_at: int | None
    detail: str = ""

    @property
    def whole(self) -> bool:
        return self.broken_at is None


def append(session: Session, kind: str, subject: str, tenant_id: str | None, data: dict[str, Any]) -> None:
    """Append one event to the audit, in the caller's transaction."""
    connection_of(session).execute(APPEND, {"kind": kind, "subject": subject, "tenant_id": tenant_id, "data": data})
    tell_after_commit(session, [(kind, subject, tenant_id, data)])


def append_many(session: Session, events: list[tuple[str, str, str | None, dict[str, Any]]], *, at: float | None = None) -> None:
    """Append many events (kind, subject, tenant_id, data) with one timestamp: `at` if given, otherwise the database's clock."""
    if events:
        sql = connection_of(session)
        at = sql.scalar(NOW) if at is None else at
        rows = [{"kind": k, "subject": s, "tenant_id": t, "data": d} for k, s, t, d in events]
        if len(rows) <= FEW:
            APPEND_AT.run_each(sql, [row | {"at": at} for row in rows])
        else:
            insert_many(session, Event, rows, at=at)
        tell_after_commit(session, events)


def tell_after_commit(session: Session, events: list[tuple[str, str, str | None, dict[str, Any]]]) -> None:
    """Queue events for the store's listener, which receives them after the transaction has committed."""
    kept = session.info.setdefault(COMMITTED_EVENTS, [])
    kept += [{"kind": k, "subject": s, "tenant_id": t, "data": d} for k, s, t, d in events]


def link(before: str, seq: int, event: Event | Row[Any]) -> str:
    """The hash of one event at position `seq`, after the event with hash `before`."""
    row = [seq, event.at, event.kind, event.subject, event.tenant_id, event.data]
    text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256((before + text).encode()).hexdigest()


def seal(session: Session, limit: int = 5000) -> int:
    """Seal up to `limit` new events into the chain; return how many. Callers hold the sweep's lock."""
    head = session.execute(
        select(Event.seq, Event.hash).where(Event.seq.is_not(None)).order_by(Event.seq.desc()).limit(1)
    ).first()
    seq, before = (head.seq or 0, head.hash or GENESIS) if head else (0, GENESIS)
    # plain columns instead of ORM entities: entities would hold SQLite's only writer twice as long
    columns = (Event.id, Event.at, Event.kind, Event.subject, Event.tenant_id, Event.data)
    rows = session.execute(select(*columns).where(Event.seq.is_(None)).order_by(Event.id).limit(limit)).all()
    changes = []
    for event in rows:
        seq += 1
        before = link(before, seq, event)
        changes.append({"the_id": event.id, "the_seq": seq, "the_hash": before})
    if changes:
        connection_of(session).execute(
            update(Event.__table__)  # type: ignore[arg-type]
            .where(Event.id == bindparam("the_id"))
            .values(seq=bindparam("the_seq"), hash=bindparam("the_hash")),
            changes,
        )
    return len(changes)


def verify(session: Session) -> ChainReport:
    """Walk the whole chain and check every link."""
    before, count = GENESIS, 0
    for event in _sealed(session):
        count += 1
        if event.seq != count:
            return ChainReport(count - 1, 0, before, count, f"event {count} is missing from the chain")
        expected = link(before, count, event)
        if event.hash != expected:
            return ChainReport(count - 1, 0, before, count, f"event {count} ({event.kind} {event.subject}) was changed")
        before = expected
    unsealed = session.scalar(select(func.count()).select_from(Event).where(Event.seq.is_(None))) or 0
    return ChainReport(count, unsealed, before, None)


def _sealed(session: Session) -> Iterator[Event]:
    after = 0
    while True:
        rows = session.scalars(select(Event).where(Event.seq > after).order_by(Event.seq).limit(5000)).all()
        if not rows:
            return
        yield from rows
        after = rows[-1].seq or 0
        session.expunge_all()
