"""The claim: a worker takes the fair-next jobs it can render together, under a lease, in one transaction."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, bindparam, func, select, update
from sqlalchemy.orm import Session

from imagefarm.recipe import Recipe
from imagefarm.states import JobState, WorkerState
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append_many
from imagefarm.store.models import Backlog, Flow, FlowClass, Job, Model, Tenant, Worker
from scheduler.fair import ClassShare, FairQueue, FlowShare, Lane
from scheduler.transition import count, moved_row, open_attempts

DEFAULT_SWAP_S = 5.0
"""Cost of loading a model whose load was never timed, in GPU-seconds."""
LOOK_AHEAD = 64
"""Waiting jobs of a flow that one claim looks at for company of the same compat key."""


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that a worker holds. (id, attempt, owner) fences every later write."""

    id: str
    attempt: int
    owner: str
    model: str
    compat_key: str
    recipe: Recipe
    count: int
    priority_class: str
    tenant_id: str
    batch_id: str | None
    custom_id: str | None
    labels: dict[str, Any]
    cost_s: float
    crashes: int
    expires_at: float | None
    preview: bool = False

    @property
    def fence(self) -> tuple[str, int, str]:
        return self.id, self.attempt, self.owner


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimLimits:
    """What a worker can take now: `images` free places, `quantum_s` predicted GPU-seconds, and for a running set that
    already has members, the `compat_key` that newcomers must share. `interactive_only` keeps a reserve for those who wait.
    """

    images: int
    quantum_s: float = 2.0
    lease_s: float = 30.0
    compat_key: str | None = None
    interactive_only: bool = False
    max_running_per_tenant: int = 10_000
    caps: dict[str, int] = field(default_factory=dict)
    """Farm-wide cap of running jobs by model."""


def claim(
    store: Store, owner: str, *, serves: Collection[str], resident: Collection[str] = (), limits: ClaimLimits
) -> list[ClaimedJob]:
    """Claim the fair-next jobs for the worker incarnation `owner`; an empty list means nothing it may take now.

    `serves` are the models it can load, `resident` those that need no loading. All jobs returned share one compat key. A
    job that crashed a worker before comes alone, so that the next crash names its cause. A worker that an operator drains,
    or that is quarantined, gets nothing.
    """
    with store.write() as session:
        return claim_in(session, owner, serves=serves, resident=resident, limits=limits)


def claim_in(
    session: Session, owner: str, *, serves: Collection[str], resident: Collection[str] = (), limits: ClaimLimits
) -> list[ClaimedJob]:
    """As `claim`, in the caller's transaction."""
    if limits.images < 1 or not serves:
        return []
    wanted = session.scalar(select(Worker.wanted).where(Worker.id == owner))
    if wanted is not None and wanted != WorkerState.READY:
        return []
    # a look without locks first: an idle farm's workers ask often
    if session.scalar(select(Backlog.queued).where(Backlog.queued > 0, Backlog.model.in_(serves)).limit(1)) is None:
        return []
    queue = lock_shares(session)
    lanes, running = _lanes(session, queue, serves, set(resident))
    tenants = {lane.flow.tenant_id for lane in lanes}
    own_limits = session.execute(select(Tenant.id, Tenant.limits).where(Tenant.id.in_(tenants))).all()
    own_caps = {tenant_id: int(own["running"]) for tenant_id, own in own_limits if "running" in own}
    for lane in queue.order(lanes):
        flow = lane.flow
        if limits.interactive_only and flow.priority_class != "interactive":
            continue
        most = min(limits.max_running_per_tenant, own_caps.get(flow.tenant_id, limits.max_running_per_tenant))
        if running.get(flow.tenant_id, 0) >= most:
            continue
        if lane.model in limits.caps and running.get("model:" + lane.model, 0) >= limits.caps[lane.model]:
            continue
        jobs = _pick(session, lane, limits)
        if jobs:
            claimed = _take(session, jobs, owner, limits)
            if claimed:
                queue.charge(flow, sum(job.cost_s for job in claimed))
                save_shares(session, queue)
                return claimed
    return []


@dataclass
class StoredShares(FairQueue):
    """The shares with their rows: held here, since the session keeps only weak references to what it has loaded."""

    class_rows: dict[str, FlowClass] = field(default_factory=dict)
    flow_rows: dict[tuple[str, str], Flow] = field(default_factory=dict)

    def keep(self, row: Flow) -> FlowShare:
        """Take in one flow's row."""
        key = (row.priority_class, row.tenant_id)
        self.flow_rows[key] = row
        self.flows[key] = FlowShare(*key, row.weight, row.pass_, row.active)
        return self.flows[key]


def lock_shares(session: Session) -> StoredShares:
    """Load the classes and hold the root row: claims take turns, also across hosts (SQLite's writer already does)."""
    rows = {row.name: row for row in session.scalars(select(FlowClass).with_for_update().order_by(FlowClass.name))}
    classes = {
        name: ClassShare(name, row.weight, row.pass_, row.vtime, row.active) for name, row in rows.items() if name != "root"
    }
    return StoredShares(classes, rows["root"].vtime, class_rows=rows)


def load_flow(session: Session, queue: StoredShares, priority_class: str, tenant_id: str) -> FlowShare:
    """The share of one flow, made with the tenant's weight if it is new."""
    known = queue.flows.get((priority_class, tenant_id))
    if known is not None:
        return known
    row = session.get(Flow, (priority_class, tenant_id))
    if row is None:
        weight = session.scalar(select(Tenant.weight).where(Tenant.id == tenant_id)) or 1.0
        row = Flow(priority_class=priority_class, tenant_id=tenant_id, weight=weight, pass_=0.0, active=False)
        session.add(row)
    return queue.keep(row)


def save_shares(session: Session, queue: StoredShares) -> None:
    """Write back the virtual times; the unit of work sends only what changed."""
    queue.class_rows["root"].vtime = queue.vtime
    for share in queue.classes.values():
        row = queue.class_rows[share.name]
        row.pass_, row.vtime, row.active = share.pass_, share.vtime, share.active
    for key, flow in queue.flows.items():
        stored = queue.flow_rows[key]
        stored.pass_, stored.active = flow.pass_, flow.active
    session.flush()


def _lanes(
    session: Session, queue: StoredShares, serves: Collection[str], resident: set[str]
) -> tuple[list[Lane], dict[str, int]]:
    """The lanes with work, and how much runs by tenant and (`model:NAME`) by model."""
    swap = dict(session.execute(select(Model.name, func.coalesce(Model.load_s, DEFAULT_SWAP_S))).all())
    lanes: list[Lane] = []
    running: dict[str, int] = {}
    for row in session.scalars(select(Flow).where(Flow.active)):
        queue.keep(row)
    with_work: set[tuple[str, str]] = set()
    columns = (Backlog.model, Backlog.priority_class, Backlog.tenant_id, Backlog.queued, Backlog.running)
    rows = session.execute(select(*columns).where((Backlog.queued > 0) | (Backlog.running > 0))).all()
    for model, priority_class, tenant_id, queued, busy in rows:
        running[tenant_id] = running.get(tenant_id, 0) + busy
        running["model:" + model] = running.get("model:" + model, 0) + busy
        with_work.add((priority_class, tenant_id))
        if queued > 0 and model in serves:
            flow = load_flow(session, queue, priority_class, tenant_id)
            lanes.append(Lane(flow, model, 0.0 if model in resident else swap.get(model, DEFAULT_SWAP_S)))
    queue.note_work(with_work)
    return lanes, running


def pick_statement(lane: Lane, limits: ClaimLimits) -> Select[str, str, int, float, int]:
    """The query for a flow's next jobs on a lane, best first; served by the index `ix_job_claim`."""
    where = [
        Job.state == JobState.QUEUED,
        Job.model == lane.model,
        Job.priority_class == lane.flow.priority_class,
        Job.tenant_id == lane.flow.tenant_id,
        Job.not_before <= db_now(),
        Job.expires_at.is_(None) | (Job.expires_at > db_now()),
    ]
    if limits.compat_key is not None:
        where += [Job.compat_key == limits.compat_key, Job.crashes == 0]
    columns = (Job.id, Job.compat_key, Job.count, Job.cost_s, Job.crashes)
    return select(*columns).where(*where).order_by(Job.rank, Job.id).limit(LOOK_AHEAD).with_for_update(skip_locked=True)


def _pick(session: Session, lane: Lane, limits: ClaimLimits) -> list[str]:
    """Ids of the flow's next jobs that go together, up to the quantum and the free places; at least one if it fits."""
    picked: list[str] = []
    key, places, cost = limits.compat_key, limits.images, 0.0
    for job_id, compat_key, images, cost_s, crashes in session.execute(pick_statement(lane, limits)):
        if crashes and not picked:
            return [job_id]
        if crashes or (key is not None and compat_key != key):
            continue
        if picked and cost + cost_s > limits.quantum_s:
            break
        if images > places and (picked or limits.compat_key is not None):
            break
        picked.append(job_id)
        key, places, cost = compat_key, places - images, cost + cost_s
        if places <= 0:
            break
    return picked


def _take(session: Session, ids: list[str], owner: str, limits: ClaimLimits) -> list[ClaimedJob]:
    statement = (
        update(Job)
        .where(Job.id.in_(ids), Job.state == JobState.QUEUED)
        .values(
            state=JobState.RUNNING,
            attempt=Job.attempt + 1,
            owner=owner,
            lease_until=db_now() + bindparam("lease_s", limits.lease_s),
            started_at=func.coalesce(Job.started_at, db_now()),
        )
        .returning(Job)
    )
    rows = sorted(session.scalars(statement), key=lambda row: (row.rank, row.id))
    if not rows:
        return []
    moved = [moved_row(row) for row in rows]
    count(session, moved, JobState.QUEUED, JobState.RUNNING)
    open_attempts(session, moved, owner)
    append_many(session, [("job.claimed", job.id, job.tenant_id, {"attempt": job.attempt, "owner": owner}) for job in moved])
    return [
        ClaimedJob(
            id=row.id,
            attempt=row.attempt,
            owner=owner,
            model=row.model,
            compat_key=row.compat_key,
            recipe=Recipe.model_validate(row.recipe),
            count=row.count,
            priority_class=row.priority_class,
            tenant_id=row.tenant_id,
            batch_id=row.batch_id,
            custom_id=row.custom_id,
            labels=row.labels,
            cost_s=row.cost_s,
            crashes=row.crashes,
            expires_at=row.expires_at,
            preview=row.preview,
        )
        for row in rows
    ]
