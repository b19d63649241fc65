"""`/admin/audit`: what happened, searched by what it happened to, by kind or by tenant; and whether the chain is whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Response, request

from api.http.context import AppContext
from api.pages.registry import Pages
from api.pages.rendering import page
from imagefarm.auth import Scope
from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.store import Session, audit, events
from imagefarm.store.models import Event

pages = Pages("pages_admin_audit")

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


@pages.get("/admin/audit", scope=Scope.ADMIN)
def audit_page(app_context: AppContext) -> Response:
    """Show the audit, newest first. `?verify=1` walks the whole chain first."""
    before = request.args.get("before", "")
    if before and not (before.isascii() and before.isdigit() and len(before) <= 18):
        raise InvalidRequest([FieldError(field="before", detail="is not the number of an event", remedy="leave it out")])
    fields = {name: request.args.get(name, "").strip()[:64] for name in FIELDS}
    with app_context.store.read() as session:
        found = events.find_events(session, limit=SHOWN + 1, before=int(before) if before else None, **fields)
        chain = chain_of(session, walk="verify" in request.args)
    shown = tuple(map(recent_event, found[:SHOWN]))
    older = shown[-1].id if len(found) > SHOWN else None
    return page("admin/audit.html", AuditView(events=shown, older=older, fields=tuple(fields.items()), chain=chain))


def recent_event(row: Event) -> RecentEvent:
    """An event as pages show it."""
    return RecentEvent(
        row.id,
        row.at,
        row.kind,
        row.subject,
        next((base + row.subject for kind, base in ADDRESSES.items() if row.subject.startswith(f"{kind}_")), ""),
        ", ".join(f"{name} {value}" for name, value in map(_shown, row.data.items()) if value is not None)[:200],
        row.seq,
        row.tenant_id or "",
    )


def chain_of(session: Session, *, walk: bool) -> Chain:
    """The chain as it stands, and walked if asked."""
    return Chain(*events.chain_head(session), audit.verify(session) if walk else None)


def _shown(item: tuple[str, Any]) -> tuple[str, str | None]:
    """What happened as one line has it: texts, numbers, and limits before and after; None for what is longer."""
    name, value = item
    if name in {"before", "after"} and isinstance(value, dict):
        return name, " ".join(f"{of}={number}" for of, number in value.items()) or "–"
    return name, str(value) if isinstance(value, str | int | float) else None
