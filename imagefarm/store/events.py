"""Reads of the audit: a search, the events of one subject, and the state of the chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from imagefarm.store.models import Event

LOOKED_AT = 200_000
"""Number of newest events that a search by kind or tenant checks. Neither column has an index."""


class ChainHead(NamedTuple):
    """The state of the audit chain: its length, the number of events that are not sealed yet, and its last hash."""

    sealed: int
    unsealed: int
    head: str


def find_events(
    session: Session,
    *,
    limit: int,
    before: int | None = None,
    subject: str = "",
    kind: str = "",
    tenant: str = "",
    visible_to: str | None = None,
) -> Sequence[Event]:
    """The newest events. `subject` is exact, `kind` is a prefix, an empty value matches any; `before` is an event's id.

    `visible_to` restricts the list to one tenant's events; None means all tenants.
    """
    statement = select(Event).order_by(Event.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(Event.id < before)
    if subject:
        statement = statement.where(Event.subject == subject)
    if kind:
        statement = statement.where(Event.kind.startswith(kind, autoescape=True))
    if tenant:
        statement = statement.where(Event.tenant_id == tenant)
    if visible_to is not None:
        statement = statement.where(Event.tenant_id == visible_to)
    if (kind or tenant or visible_to is not None) and not subject:
        statement = statement.where(Event.id > (session.scalar(select(func.max(Event.id))) or 0) - LOOKED_AT)
    return session.scalars(statement).all()


def events_of(session: Session, subject: str, limit: int, *, after: int = 0) -> Sequence[Event]:
    """The events of a subject, oldest first, with ids above `after`."""
    statement = select(Event).where(Event.subject == subject, Event.id > after).order_by(Event.id).limit(limit)
    return session.scalars(statement).all()


def chain_head(session: Session) -> ChainHead:
    """The state of the chain. It is not verified."""
    head = session.execute(
        select(Event.seq, Event.hash).where(Event.seq.is_not(None)).order_by(Event.seq.desc()).limit(1)
    ).first()
    unsealed = session.scalar(select(func.count()).select_from(Event).where(Event.seq.is_(None))) or 0
    return ChainHead(head.seq or 0, unsealed, head.hash or "") if head else ChainHead(0, unsealed, "")
