"""Workers as the farm sees them: registration, heartbeat, the operator's desired state, and their end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import ColumnElement, case, delete, insert, select, update
from sqlalchemy.orm import Session, aliased

from imagefarm.errors import NotFound
from imagefarm.settings import Settings
from imagefarm.states import WorkerState
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append
from imagefarm.store.models import Job, Model, Worker
from scheduler.metrics.rollup import count_load
from scheduler.queue.retry import requeue_after_crash

INSUFFICIENT_MEMORY = "insufficient_memory"
"""Key of a worker's facts: models that did not fit into its memory, each with the reason."""
OFFLINE_RETENTION_S = 3600.0
"""Seconds that an offline worker stays on the page."""
DRAINED_RETENTION_S = 30 * 86400.0
"""Seconds that a drained or quarantined worker stays, whose next incarnation would inherit that state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerIdentity:
    """One incarnation of a worker: a new id every time its child starts."""

    id: str
    name: str
    host: str
    pid: int
    device: str
    version: str
    serves: list[str]
    facts: dict[str, Any] = field(default_factory=dict)


def register(store: Store, worker: WorkerIdentity) -> None:
    """Register a worker's new child. If its predecessor of the same name was quarantined or draining, it stays so."""

    def work(session: Session) -> None:
        last = session.execute(
            select(Worker.desired_state, Worker.reason)
            .where(Worker.name == worker.name)
            .order_by(Worker.started_at.desc())
            .limit(1)
        ).first()
        session.execute(
            insert(Worker).values(
                id=worker.id,
                name=worker.name,
                host=worker.host,
                pid=worker.pid,
                state=WorkerState.STARTING,
                desired_state=last.desired_state if last else str(WorkerState.READY),
                reason=last.reason if last and last.desired_state != WorkerState.READY else "",
                device=worker.device,
                version=worker.version,
                serves=worker.serves,
                resident=[],
                facts=worker.facts,
                load={},
                pending_commands=[],
                started_at=db_now(),
                heartbeat_at=db_now(),
            )
        )
        append(session, "worker.started", worker.id, None, {"name": worker.name, "device": worker.device})

    store.run_with_retry(work)


def heartbeat(
    store: Store, worker_id: str, state: WorkerState, *, resident: list[str], load: dict[str, Any]
) -> tuple[str, list[dict[str, str]]]:
    """Store a worker's report; return the operator's desired state (ready, draining, quarantined) and new commands, each once.

    Raises NotFound for a worker that was marked offline and removed; it may register again.
    """

    def work(session: Session) -> tuple[str, list[dict[str, str]]]:
        row = session.execute(
            select(Worker.desired_state, Worker.pending_commands).where(Worker.id == worker_id).with_for_update()
        ).first()
        if row is None:
            raise NotFound(f"no worker {worker_id!r} is known")
        values: dict[str, Any] = {"state": state, "resident": resident, "load": load, "heartbeat_at": db_now()}
        if row.pending_commands:
            values["pending_commands"] = []
        session.execute(update(Worker).where(Worker.id == worker_id).values(values))
        return row.desired_state, row.pending_commands

    return store.run_with_retry(work, timeout_s=10.0)


def send_command(store: Store, do: Literal["warm", "unload"], model: str, *, worker: str | None = None, by: str) -> list[str]:
    """Have the workers that serve a model load or unload it; `worker` (id or name) selects one, otherwise all.

    They receive it with their next heartbeat and run it when nothing renders. Returns the incarnations; raises NotFound if there
    is
    none.
    """

    def work(session: Session) -> list[str]:
        rows = session.scalars(select(Worker).where(Worker.state != WorkerState.OFFLINE).with_for_update())
        told = [row for row in rows if model in row.serves and worker in (None, row.id, row.name)]
        if not told:
            named = f"no worker {worker!r} that serves" if worker else "no worker that serves"
            raise NotFound(f"{named} model {model} is running")
        for row in told:
            row.pending_commands = [*row.pending_commands, {"do": do, "model": model}]
            append(session, "worker.command", row.id, None, {"do": do, "model": model, "by": by})
        return [row.id for row in told]

    return store.run_with_retry(work)


def mark_offline(
    store: Store, worker_id: str, settings: Settings, reason: str, *, clean: bool, self_inflicted: bool = False
) -> int:
    """Mark a worker offline. If it died, its jobs are requeued at once and count a crash; `self_inflicted`: it was not killed.
    Returns how many were requeued.
    """

    def work(session: Session) -> int:
        lost = (
            []
            if clean
            else requeue_after_crash(session, [Job.owner == worker_id], settings, reason, self_inflicted=self_inflicted)
        )
        changed = session.execute(
            update(Worker)
            .where(Worker.id == worker_id, Worker.state != WorkerState.OFFLINE)
            .values(state=WorkerState.OFFLINE, reason=_reason_unless_commanded(reason), heartbeat_at=db_now())
            .returning(Worker.id)
        ).first()
        if changed:
            append(session, "worker.offline", worker_id, None, {"reason": reason, "clean": clean, "jobs": len(lost)})
        return len(lost)

    return store.run_with_retry(work)


def _reason_unless_commanded(reason: str) -> ColumnElement[str]:
    """Why it is offline, drained or quarantined; its next incarnation inherits the state and shows the reason."""
    return case((Worker.desired_state == WorkerState.READY, reason), else_=Worker.reason)


def set_desired_state(
    store: Store, worker_id_or_name: str, desired_state: WorkerState, *, by: str, reason: str = ""
) -> list[str]:
    """Drain, quarantine or resume a worker by id or name; return the incarnations. Raises NotFound."""

    def work(session: Session) -> list[str]:
        ids = list(
            session.scalars(
                update(Worker)
                .where((Worker.id == worker_id_or_name) | (Worker.name == worker_id_or_name), Worker.state != WorkerState.OFFLINE)
                .values(desired_state=desired_state, reason=reason)
                .returning(Worker.id)
            )
        )
        if not ids:
            raise NotFound(f"no worker {worker_id_or_name!r} is running")
        for worker_id in ids:
            append(session, f"worker.{desired_state}", worker_id, None, {"by": by, "reason": reason})
        return ids

    return store.run_with_retry(work)


def worker_names(session: Session, limit: int) -> list[str]:
    """All names that workers have had, sorted."""
    return list(session.scalars(select(Worker.name).distinct().order_by(Worker.name).limit(limit)))


def expire_stale_workers(session: Session, timeout_s: float) -> list[str]:
    """Mark workers offline after `timeout_s` without a heartbeat, and remove those offline for long; return their ids."""
    stale = list(
        session.scalars(
            update(Worker)
            .where(Worker.state != WorkerState.OFFLINE, Worker.heartbeat_at < db_now() - timeout_s)
            .values(state=WorkerState.OFFLINE, reason=_reason_unless_commanded(f"not heard of for {timeout_s:.0f} s"))
            .returning(Worker.id)
        )
    )
    for worker_id in stale:
        append(session, "worker.offline", worker_id, None, {"reason": "heartbeat_timeout", "clean": False})
    later = aliased(Worker)
    has_next = select(later.id).where(later.name == Worker.name, later.started_at > Worker.started_at).exists()
    keep_s = case(((Worker.desired_state == WorkerState.READY) | has_next, OFFLINE_RETENTION_S), else_=DRAINED_RETENTION_S)
    session.execute(delete(Worker).where(Worker.state == WorkerState.OFFLINE, Worker.heartbeat_at < db_now() - keep_s))
    return stale


def report_model(
    store: Store,
    name: str,
    state: str,
    *,
    reason: str = "",
    digest: str = "",
    facts: dict[str, Any] | None = None,
    load_s: float | None = None,
    cost_s: float | None = None,
) -> None:
    """Store what a worker learned when it loaded, or could not load, a model."""

    def work(session: Session) -> None:
        row = session.get(Model, name)
        before = None if row is None else row.state
        if row is None:
            row = Model(name=name, state=state, reason=reason, digest=digest, facts={}, micro_batch_limits={}, updated_at=0.0)
            session.add(row)
        row.state, row.reason = state, reason
        row.digest = digest or row.digest
        row.facts = facts if facts is not None else row.facts
        row.load_s = load_s if load_s is not None else row.load_s
        row.cost_s = row.cost_s if row.cost_s is not None else cost_s
        session.flush()
        session.execute(update(Model).where(Model.name == name).values(updated_at=db_now()))
        if load_s is not None:
            count_load(session)
        if before != state:
            append(session, f"model.{state}", name, None, {"reason": reason, "digest": digest})

    store.run_with_retry(work)


def report_insufficient_memory(store: Store, worker_id: str, model: str, detail: str = "") -> None:
    """Store whether a worker has the memory for a model: `detail` is the reason if it has not, otherwise empty."""

    def work(session: Session) -> None:
        facts = session.scalar(select(Worker.facts).where(Worker.id == worker_id).with_for_update())
        if facts is None or facts.get(INSUFFICIENT_MEMORY, {}).get(model, "") == detail:
            return
        others = {name: reason for name, reason in facts.get(INSUFFICIENT_MEMORY, {}).items() if name != model}
        kept = others | ({model: detail} if detail else {})
        session.execute(update(Worker).where(Worker.id == worker_id).values(facts={**facts, INSUFFICIENT_MEMORY: kept}))

    store.run_with_retry(work, timeout_s=10.0)


def save_micro_batch_limits(store: Store, name: str, profile: str, limits: dict[str, Any]) -> None:
    """Store what a worker learned about a model's memory. `profile` is the kind of device, tier and dtype."""

    def work(session: Session) -> None:
        row = session.get(Model, name, with_for_update=True)
        if row is not None:
            row.micro_batch_limits = {**row.micro_batch_limits, profile: limits}

    store.run_with_retry(work, timeout_s=10.0)


def load_micro_batch_limits(store: Store, name: str, profile: str) -> dict[str, Any]:
    """The batch limits stored for a model and this profile; empty if there are none."""
    with store.read() as session:
        row = session.get(Model, name)
        return {} if row is None else dict(row.micro_batch_limits.get(profile, {}))
