"""The desk `/admin`: workers and what is wanted of them, lanes and flows, throughput, settings, events, audit chain, keys."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, redirect, request
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api import queue as api_queue
from api.auth import authenticate, require
from api.context import Farm, current_farm
from api.pages.farm_view import FarmView, farm_view
from api.pages.rendering import page
from api.pages.status import redis_pulse
from api.pages.throughput import PERIODS, Throughput, throughput
from imagefarm.auth import Caller, Scope, is_open, list_keys
from imagefarm.errors import FieldError, InvalidRequest, NotFound
from imagefarm.settings import Settings, redacted
from imagefarm.states import WorkerState
from imagefarm.store import audit
from imagefarm.store.models import Event
from scheduler import workers

pages = Blueprint("pages_admin", __name__)

EVENTS_SHOWN = 30
SECRET_WORDS = ("secret", "password", "token", "key")
ORDERS = {"drain": WorkerState.DRAINING, "resume": WorkerState.READY, "quarantine": WorkerState.QUARANTINED}
ADDRESSES = {"job": "/jobs/", "batch": "/batches/"}


@dataclass(frozen=True, slots=True)
class RecentEvent:
    """One audited change, and where its subject can be seen."""

    id: int
    at: float
    kind: str
    subject: str
    address: str
    data: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The audit chain: its length, what waits to be sealed, its head; `report` if it has just been walked."""

    sealed: int
    unsealed: int
    head: str
    report: audit.ChainReport | None


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it may be shown, and where its value came from."""

    name: str
    value: str
    origin: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminView:
    """What the desk shows."""

    farm: FarmView
    flows: tuple[api_queue.FlowAnswer, ...]
    throughput: Throughput
    periods: tuple[str, ...]
    events: tuple[RecentEvent, ...]
    chain: Chain
    settings: tuple[Setting, ...]
    keys: tuple[tuple[str, str, str, str, float | None, bool], ...]
    is_open: bool


@pages.get("/admin")
def admin_page() -> Response:
    """Show the desk. `?verify=1` walks the whole audit chain first."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.ADMIN)
    period = request.args.get("period", "hour")
    if period not in PERIODS:
        raise InvalidRequest([FieldError(field="period", detail="is not a period", remedy="use one of " + ", ".join(PERIODS))])
    beats = redis_pulse().beats()
    flows = tuple(api_queue.get_queue(farm, caller).flows)
    with farm.store.read() as session:
        view = AdminView(
            farm=farm_view(session, farm, caller, redis_beats=beats, closely=True),
            flows=flows,
            throughput=throughput(session, caller, period),
            periods=tuple(PERIODS),
            events=_events(session),
            chain=_chain(session, walk="verify" in request.args),
            settings=_settings(farm.settings),
            keys=_keys(farm, caller),
            is_open=is_open(farm.settings),
        )
    return page("admin.html", view)


@pages.post("/admin/workers/<worker_id>/<order>")
def worker_form(worker_id: str, order: str) -> Any:
    """Drain, resume or quarantine a worker, and go back to the desk."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.ADMIN)
    if order not in ORDERS:
        raise NotFound(f"a worker takes no order {order[:40]!r}; it takes {', '.join(ORDERS)}")
    workers.want(farm.store, worker_id, ORDERS[order], by=caller.name)
    return redirect("/admin", 303)


def _events(session: Session) -> tuple[RecentEvent, ...]:
    rows = session.scalars(select(Event).order_by(Event.id.desc()).limit(EVENTS_SHOWN)).all()
    return tuple(
        RecentEvent(
            row.id,
            row.at,
            row.kind,
            row.subject,
            next((base + row.subject for kind, base in ADDRESSES.items() if row.subject.startswith(f"{kind}_")), ""),
            ", ".join(f"{name} {value}" for name, value in row.data.items() if isinstance(value, str | int | float))[:200],
        )
        for row in rows
    )


def _chain(session: Session, *, walk: bool) -> Chain:
    head = session.execute(
        select(Event.seq, Event.hash).where(Event.seq.is_not(None)).order_by(Event.seq.desc()).limit(1)
    ).first()
    unsealed = session.scalar(select(func.count()).select_from(Event).where(Event.seq.is_(None))) or 0
    sealed, digest = (head.seq or 0, head.hash or "") if head else (0, "")
    return Chain(sealed, unsealed, digest, audit.verify(session) if walk else None)


def _settings(settings: Settings) -> tuple[Setting, ...]:
    origins = settings.origins({})
    shown = []
    for name, info in type(settings).model_fields.items():
        value = getattr(settings, name)
        text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
        if name.endswith("_url"):
            text = redacted(text)
        elif text and any(word in name for word in SECRET_WORDS):
            text = "***"
        shown.append(Setting(name, text, origins[name], info.description or ""))
    return tuple(shown)


def _keys(farm: Farm, caller: Caller) -> tuple[tuple[str, str, str, str, float | None, bool], ...]:
    return tuple(
        (key.name, f"if_{key.prefix}_…", key.tenant, ", ".join(key.scopes), key.last_used_at, key.revoked_at is not None)
        for key in list_keys(farm.store, tenant_id=caller.tenant_filter)[:50]
    )
