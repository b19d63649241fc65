"""`/admin/audit`: audited events, filtered by subject, kind or tenant, and the check of the audit chain."""

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
    """One audited event, with the address of its subject's page (empty without one)."""

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
    """The audit chain: sealed events, events that wait to be sealed, the head hash, and `report` if it was verified now."""

    sealed: int
    unsealed: int
    head: str
    report: audit.ChainReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditView:
    """The data of the audit page."""

    events: tuple[RecentEvent, ...]
    older: int | None
    fields: tuple[tuple[str, str], ...]
    chain: Chain


@pages.get("/admin/audit", scope=Scope.FARM)
def audit_page(app_context: AppContext) -> Response:
    """Show audited events, newest first. `?verify=1` verifies the whole chain first."""
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
    """Convert an event to its row on a page."""
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
    """The state of the chain, with a verification report if `walk`."""
    return Chain(*events.chain_head(session), audit.verify(session) if walk else None)


def _shown(item: tuple[str, Any]) -> tuple[str, str | None]:
    """One value of an event as text: texts, numbers, and the limits before and after a change; None for other values."""
    name, value = item
    if name in {"before", "after"} and isinstance(value, dict):
        return name, " ".join(f"{of}={number}" for of, number in value.items()) or "–"
    return name, str(value) if isinstance(value, str | int | float) else None
