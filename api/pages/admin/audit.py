"""`/admin/audit`: what happened, searched by what it happened to, by kind or by tenant; and whether the chain is whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, request
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from api.http.auth import authenticate, require
from api.http.context import current_app_context
from api.pages.rendering import page
from api.v1.events import events_wanted
from imagefarm.auth import Scope
from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.store import audit
from imagefarm.store.models import Event

pages = Blueprint("pages_admin_audit", __name__)

SHOWN = 60
ADDRESSES = {"job": "/jobs/", "batch": "/batches/"}
FIELDS = ("subject", "kind", "tenant")


@dataclass(frozen=True, slots=True)
class RecentEvent:
    """One audited change, and where its subject can be seen."""

    id: int
    at: float
    kind: str
    subject: str
    address: str
    data: str
    seq: int | None
    tenant: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The audit chain: its length, what waits to be sealed, its head; `report` if it has just been walked."""

    sealed: int
    unsealed: int
    head: str
    report: audit.ChainReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditView:
    """What the page shows."""

    events: tuple[RecentEvent, ...]
    older: int | None
    fields: tuple[tuple[str, str], ...]
    chain: Chain


@pages.get("/admin/audit")
def audit_page() -> Response:
    """Show the audit, newest first. `?verify=1` walks the whole chain first."""
    app_context = current_app_context()
    require(authenticate(app_context), Scope.ADMIN)
    before = request.args.get("before", "")
    if before and not (before.isascii() and before.isdigit() and len(before) <= 18):
        raise InvalidRequest([FieldError(field="before", detail="is not the number of an event", remedy="leave it out")])
    fields = {name: request.args.get(name, "").strip()[:64] for name in FIELDS}
    with app_context.store.read() as session:
        found = recent_events(session, SHOWN + 1, *events_wanted(session, **fields), before=int(before) if before else None)
        chain = chain_of(session, walk="verify" in request.args)
    shown = found[:SHOWN]
    older = shown[-1].id if len(found) > SHOWN else None
    return page("admin_audit.html", AuditView(events=shown, older=older, fields=tuple(fields.items()), chain=chain))


def recent_events(
    session: Session, limit: int, *where: ColumnElement[bool], before: int | None = None
) -> tuple[RecentEvent, ...]:
    """The newest events that match."""
    statement = select(Event).where(*where).order_by(Event.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(Event.id < before)
    return tuple(
        RecentEvent(
            row.id,
            row.at,
            row.kind,
            row.subject,
            next((base + row.subject for kind, base in ADDRESSES.items() if row.subject.startswith(f"{kind}_")), ""),
            ", ".join(f"{name} {value}" for name, value in map(_shown, row.data.items()) if value is not None)[:200],
            row.seq,
            row.tenant_id or "",
        )
        for row in session.scalars(statement)
    )


def chain_of(session: Session, *, walk: bool) -> Chain:
    """The chain as it stands, and walked if asked."""
    head = session.execute(
        select(Event.seq, Event.hash).where(Event.seq.is_not(None)).order_by(Event.seq.desc()).limit(1)
    ).first()
    unsealed = session.scalar(select(func.count()).select_from(Event).where(Event.seq.is_(None))) or 0
    sealed, digest = (head.seq or 0, head.hash or "") if head else (0, "")
    return Chain(sealed, unsealed, digest, audit.verify(session) if walk else None)


def _shown(item: tuple[str, Any]) -> tuple[str, str | None]:
    """What happened as one line has it: texts, numbers, and limits before and after; None for what is longer."""
    name, value = item
    if name in {"before", "after"} and isinstance(value, dict):
        return name, " ".join(f"{of}={number}" for of, number in value.items()) or "–"
    return name, str(value) if isinstance(value, str | int | float) else None
