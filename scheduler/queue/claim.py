"""The claim: a worker takes the fair-next jobs that it can render together, under a lease, in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, literal_column, select, update
from sqlalchemy.orm import Session

from imagefarm.recipe import Recipe
from imagefarm.states import JobState, PriorityClass, WorkerState
from imagefarm.store import Store, connection_of, db_now
from imagefarm.store.audit import append_many
from imagefarm.store.compiled import CompiledStatement
from imagefarm.store.models import ApiKey, Backlog, Flow, FlowClass, Job, Model, Tenant, Worker
from scheduler.queue.fair import ClassShare, FairQueue, FlowShare, Lane
from scheduler.queue.transition import ChangedJob, count, open_attempts

DEFAULT_SWAP_S = 5.0
"""Cost in GPU-seconds of loading a model whose load was never timed."""
LOOK_AHEAD = 64
"""Waiting jobs of a flow in which one claim looks for more of the same compat key."""


# compiled once: on SQLite, building these statements for each claim took longer than running them


@lru_cache(maxsize=64)
def _waiting(models: int) -> Any:
    """One row if jobs wait for one of this many models, no row otherwise."""
    serves: list[Any] = [bindparam(f"model_{number}") for number in range(models)]
    return select(literal_column("1")).select_from(Backlog).where(Backlog.queued > 0, Backlog.model.in_(serves)).limit(1)


@lru_cache(maxsize=64)
def _first_look(models: int) -> CompiledStatement:
    """The operator's desired state of the worker, and whether jobs wait for it."""
    desired_state = select(Worker.desired_state).where(Worker.id == bindparam("owner"))
    return CompiledStatement(select(desired_state.scalar_subquery(), _waiting(models).scalar_subquery()))


@lru_cache(maxsize=64)
def _has_work(models: int, interactive_only: bool) -> CompiledStatement:
    waiting = _waiting(models)
    return CompiledStatement(waiting.where(Backlog.priority_class == PriorityClass.INTERACTIVE) if interactive_only else waiting)


CLASSES = CompiledStatement(
    select(FlowClass.name, FlowClass.weight, FlowClass.pass_, FlowClass.vtime, FlowClass.active)
    .order_by(FlowClass.name)
    .with_for_update()
)
SAVE_CLASS = CompiledStatement(
    update(FlowClass)
    .where(FlowClass.name == bindparam("of_name"))
    .values(pass_=bindparam("new_pass"), vtime=bindparam("new_vtime"), active=bindparam("new_active"))
)
_flow = select(Flow.priority_class, Flow.tenant_id, Flow.weight, Flow.pass_, Flow.active)
ACTIVE_FLOWS = CompiledStatement(_flow.where(Flow.active))
ONE_FLOW = CompiledStatement(
    _flow.where(Flow.priority_class == bindparam("priority_class"), Flow.tenant_id == bindparam("tenant_id"))
)
SAVE_FLOW = CompiledStatement(
    update(Flow)
    .where(Flow.priority_class == bindparam("of_class"), Flow.tenant_id == bindparam("of_tenant"))
    .values(pass_=bindparam("new_pass"), active=bindparam("new_active"))
)
OWN_LIMITS = CompiledStatement(select(Tenant.limits).where(Tenant.id == bindparam("tenant_id")))
OWN_WEIGHT = select(Tenant.weight).where(Tenant.id == bindparam("tenant_id"))
LOAD_TIMES = CompiledStatement(select(Model.name, func.coalesce(Model.load_s, DEFAULT_SWAP_S)))
WORK = CompiledStatement(
    select(Backlog.model, Backlog.priority_class, Backlog.tenant_id, Backlog.queued, Backlog.running).where(
        (Backlog.queued > 0) | (Backlog.running > 0)
    )
)
KEY_RUNNING = select(func.count()).where(
    Job.quota_id == bindparam("quota_id"),
    Job.state == literal_column("'running'"),
    # the condition of the index `ix_job_quota_id`, spelt as it is there, because SQLite does not infer it
    literal_column("job.state IN ('held', 'queued', 'running')"),
)
KEY_MAX_RUNNING = select(func.coalesce(ApiKey.quota_id, ApiKey.id), ApiKey.limits).where(
    func.coalesce(ApiKey.quota_id, ApiKey.id).in_(bindparam("quota_ids", expanding=True))
)
_pick_next = (
    select(Job.id, Job.compat_key, Job.count, Job.cost_s, Job.crashes, Job.quota_id)
    .where(
        Job.state == literal_column("'queued'"),
        Job.model == bindparam("model"),
        Job.priority_class == bindparam("priority_class"),
        Job.tenant_id == bindparam("tenant_id"),
        Job.not_before <= db_now(),
        Job.expires_at.is_(None) | (Job.expires_at > db_now()),
    )
    .order_by(Job.rank, Job.id)
    .limit(LOOK_AHEAD)
    .with_for_update(skip_locked=True)
)
"""A flow's next jobs on a lane, best first. The state is spelt out as in the partial index `ix_job_claim`, which serves it."""
_alike = (Job.compat_key == bindparam("compat_key"), Job.crashes == 0)
_key_has_capacity = Job.quota_id.is_(None) | Job.quota_id.not_in(bindparam("full_keys", expanding=True))
PICK = CompiledStatement(_pick_next)
PICK_LIKE = CompiledStatement(_pick_next.where(*_alike))
PICK_PAST_KEYS = _pick_next.where(_key_has_capacity)
PICK_LIKE_PAST_KEYS = _pick_next.where(_key_has_capacity, *_alike)


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that a worker holds. (id, attempt, owner) fences every later write."""

    id: str
    attempt: int
    owner: str
    model: str
    compat_key: str
    recipe: Recipe
    recipe_hash: str
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


TAKEN = [one.name for one in fields(ClaimedJob) if one.name != "owner"]
"""The job columns that a claim reads."""


@lru_cache(maxsize=64)
def _take_so_many(jobs: int) -> CompiledStatement:
    """Take this many jobs by their ids."""
    ids: list[Any] = [bindparam(f"id_{number}") for number in range(jobs)]
    return CompiledStatement(
        update(Job)
        .where(Job.id.in_(ids), Job.state == JobState.QUEUED)
        .values(
            state=JobState.RUNNING,
            attempt=Job.attempt + 1,
            owner=bindparam("new_owner"),
            lease_until=db_now() + bindparam("lease_s"),
            started_at=func.coalesce(Job.started_at, db_now()),
        )
        .returning(db_now(), Job.rank, *(getattr(Job, name) for name in TAKEN))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimLimits:
    """What a worker can take now: `images` free places, `quantum_s` predicted GPU-seconds, and for a non-empty running set the
    `compat_key` that new jobs must have. `interactive_only` restricts the claim to the places reserved for interactive jobs.
    """

    images: int
    quantum_s: float = 2.0
    lease_s: float = 30.0
    compat_key: str | None = None
    interactive_only: bool = False
    max_running_per_tenant: int = 10_000
    max_running_per_model: dict[str, int] = field(default_factory=dict)
    """Farm-wide cap of running jobs, by model."""


def claim(
    store: Store, owner: str, *, serves: Collection[str], resident: Collection[str] = (), limits: ClaimLimits
) -> list[ClaimedJob]:
    """Claim the fair-next jobs for the worker incarnation `owner`; an empty list means that nothing is claimable now.

    `serves` are the models that it can load, `resident` those that are loaded. All returned jobs share one compat key. A job that
    crashed a worker before is claimed alone, so that the next crash identifies its cause. A draining or quarantined worker gets
    nothing.

    On SQLite the commit does not wait for the disk. Only a power failure can lose such a claim, and it ends this worker too,
    because
    they share one host. What a worker commits later is durable and includes the claim, because the WAL is one sequence. On
    PostgreSQL the commit waits: a crashed server could forget a claim whose worker lives, and the next attempt with the same
    number
    would write files of the same names.
    """
    with store.write(durable=False) as session:
        return claim_in(session, owner, serves=serves, resident=resident, limits=limits)


def has_work(store: Store, serves: Collection[str], *, interactive_only: bool = False) -> bool:
    """Whether jobs wait for one of these models. One indexed read, no lock, no transaction."""
    if not serves:
        return False
    with store.autocommit_read() as sql:
        return bool(_has_work(len(serves), interactive_only).run(sql, _models(serves)))


def claim_in(
    session: Session, owner: str, *, serves: Collection[str], resident: Collection[str] = (), limits: ClaimLimits
) -> list[ClaimedJob]:
    """As `claim`, in the caller's transaction."""
    if limits.images < 1 or not serves:
        return []
    sql = connection_of(session)
    # read without locks first, because the workers of an idle farm ask often
    desired_state, waits = _first_look(len(serves)).run(sql, {"owner": owner, **_models(serves)})[0]
    if waits is None or (desired_state is not None and desired_state != WorkerState.READY):
        return []
    queue = lock_shares(session)
    lanes, running = _lanes(session, queue, serves, set(resident))
    key_concurrency = KeyConcurrency(session)
    for lane in queue.order(lanes):
        flow = lane.flow
        if limits.interactive_only and flow.priority_class != "interactive":
            continue
        own = _one(OWN_LIMITS, sql, {"tenant_id": flow.tenant_id}) or {}
        most = min(limits.max_running_per_tenant, int(own.get("running", 10**9))) - running.get(flow.tenant_id, 0)
        if lane.model in limits.max_running_per_model:
            most = min(most, limits.max_running_per_model[lane.model] - running.get("model:" + lane.model, 0))
        if most < 1:
            continue
        jobs = _pick(session, lane, limits, key_concurrency, most)
        if jobs:
            claimed = _take(session, jobs, owner, limits)
            if claimed:
                queue.charge(flow, sum(job.cost_s for job in claimed))
                save_shares(session, queue)
                return claimed
    return []


class KeyConcurrency:
    """How many more jobs may run, for each key with a cap of its own."""

    def __init__(self, session: Session) -> None:
        self.sql = connection_of(session)
        self.left: dict[str, float] = {}
        """By quota id, for the keys met so far; a farm without such keys runs no query."""

    @property
    def full(self) -> list[str]:
        """Quota ids without free capacity."""
        return [quota_id for quota_id, left in self.left.items() if left <= 0]

    def has_capacity(self, quota_id: str) -> bool:
        """True if one more job of this key may run. A key and the key that it was rotated from count together."""
        if quota_id not in self.left:
            max_running = self.max_running(quota_id)
            running = 0 if max_running == float("inf") else self.sql.scalar(KEY_RUNNING, {"quota_id": quota_id}) or 0
            self.left[quota_id] = max_running - running
        return self.left[quota_id] > 0

    def max_running(self, quota_id: str) -> float:
        """How many of this key's jobs may run at once; infinite without a cap."""
        bounds = [own.get("running") for _, own in self.sql.execute(KEY_MAX_RUNNING, {"quota_ids": [quota_id]})]
        return min((float(max_running) for max_running in bounds if max_running is not None), default=float("inf"))


@dataclass
class StoredShares(FairQueue):
    """The shares, and their stored values, so that only changes are written back."""

    stored_classes: dict[str, tuple[float, float, bool]] = field(default_factory=dict)
    stored_flows: dict[tuple[str, str], tuple[float, bool]] = field(default_factory=dict)

    def keep(self, priority_class: str, tenant_id: str, weight: float, pass_: float, active: bool) -> FlowShare:
        """Add one flow's row."""
        key = (priority_class, tenant_id)
        self.stored_flows[key] = (pass_, active)
        self.flows[key] = FlowShare(priority_class, tenant_id, weight, pass_, active)
        return self.flows[key]


def lock_shares(session: Session) -> StoredShares:
    """Load the classes and lock the root row: claims are serialised, also across hosts (SQLite's writer serialises anyway)."""
    queue = StoredShares({})
    for name, weight, pass_, vtime, active in CLASSES.run(connection_of(session)):
        queue.stored_classes[name] = (pass_, vtime, active)
        if name == "root":
            queue.vtime = vtime
        else:
            queue.classes[name] = ClassShare(name, weight, pass_, vtime, active)
    return queue


def load_flow(session: Session, queue: StoredShares, priority_class: str, tenant_id: str) -> FlowShare:
    """The share of one flow; a new flow gets its tenant's weight."""
    known = queue.flows.get((priority_class, tenant_id))
    if known is not None:
        return known
    sql, key = connection_of(session), {"priority_class": priority_class, "tenant_id": tenant_id}
    for row in ONE_FLOW.run(sql, key):
        return queue.keep(*row)
    weight = sql.scalar(OWN_WEIGHT, {"tenant_id": tenant_id}) or 1.0
    sql.execute(insert(Flow).values(**key, weight=weight, pass_=0.0, active=False))
    return queue.keep(priority_class, tenant_id, weight, 0.0, False)


def save_shares(session: Session, queue: StoredShares) -> None:
    """Write back the virtual times that changed."""
    sql = connection_of(session)
    root_pass, root_vtime, root_active = queue.stored_classes["root"]
    classes = [
        {"of_name": share.name, "new_pass": share.pass_, "new_vtime": share.vtime, "new_active": share.active}
        for share in queue.classes.values()
        if queue.stored_classes[share.name] != (share.pass_, share.vtime, share.active)
    ]
    if queue.vtime != root_vtime:
        classes.append({"of_name": "root", "new_pass": root_pass, "new_vtime": queue.vtime, "new_active": root_active})
    flows = [
        {"of_class": key[0], "of_tenant": key[1], "new_pass": flow.pass_, "new_active": flow.active}
        for key, flow in queue.flows.items()
        if queue.stored_flows[key] != (flow.pass_, flow.active)
    ]
    SAVE_CLASS.run_each(sql, classes)
    SAVE_FLOW.run_each(sql, flows)


def _lanes(
    session: Session, queue: StoredShares, serves: Collection[str], resident: set[str]
) -> tuple[list[Lane], dict[str, int]]:
    """The lanes with work, and the running jobs by tenant and (`model:NAME`) by model."""
    sql = connection_of(session)
    swap: dict[str, float] = dict(LOAD_TIMES.run(sql))
    lanes: list[Lane] = []
    running: dict[str, int] = {}
    for row in ACTIVE_FLOWS.run(sql):
        queue.keep(*row)
    with_work: set[tuple[str, str]] = set()
    for model, priority_class, tenant_id, queued, busy in WORK.run(sql):
        running[tenant_id] = running.get(tenant_id, 0) + busy
        running["model:" + model] = running.get("model:" + model, 0) + busy
        if queued > 0:
            with_work.add((priority_class, tenant_id))
        if queued > 0 and model in serves:
            flow = load_flow(session, queue, priority_class, tenant_id)
            lanes.append(Lane(flow, model, 0.0 if model in resident else swap.get(model, DEFAULT_SWAP_S)))
    queue.note_work(with_work)
    return lanes, running


def _pick(session: Session, lane: Lane, limits: ClaimLimits, key_concurrency: KeyConcurrency, most: int) -> list[str]:
    """Ids of the flow's next jobs that fit together, up to the quantum, the free places and `most`; at least one if it fits."""
    while True:
        full = key_concurrency.full
        picked = _look(session, lane, limits, key_concurrency, most)
        if picked or key_concurrency.full == full:
            return picked
        # all jobs read may belong to keys at their cap: read past them


def _look(session: Session, lane: Lane, limits: ClaimLimits, key_concurrency: KeyConcurrency, most: int) -> list[str]:
    picked: list[str] = []
    key, places, cost = limits.compat_key, limits.images, 0.0
    values = {"model": lane.model, "priority_class": lane.flow.priority_class, "tenant_id": lane.flow.tenant_id}
    if key is not None:
        values["compat_key"] = key
    for job_id, compat_key, images, cost_s, crashes, quota_id in _next_jobs(connection_of(session), values, key_concurrency.full):
        if quota_id is not None and not key_concurrency.has_capacity(quota_id):
            continue
        if crashes and not picked:
            return [job_id]
        if crashes or (key is not None and compat_key != key):
            continue
        if picked and cost + cost_s > limits.quantum_s:
            break
        if images > places and (picked or limits.compat_key is not None):
            break
        picked.append(job_id)
        if quota_id is not None:
            key_concurrency.left[quota_id] -= 1
        key, places, cost = compat_key, places - images, cost + cost_s
        if places <= 0 or len(picked) >= most:
            break
    return picked


def _next_jobs(sql: Connection, values: dict[str, str], full_keys: list[str]) -> Sequence[Any]:
    """A flow's next jobs, only those of one compat key if `values` has one, without those of keys at their cap."""
    alike = "compat_key" in values
    if full_keys:
        statement = PICK_LIKE_PAST_KEYS if alike else PICK_PAST_KEYS
        return sql.execute(statement, {**values, "full_keys": full_keys}).all()
    return (PICK_LIKE if alike else PICK).run(sql, values)


def _take(session: Session, ids: list[str], owner: str, limits: ClaimLimits) -> list[ClaimedJob]:
    values = {"new_owner": owner, "lease_s": limits.lease_s, **{f"id_{number}": job_id for number, job_id in enumerate(ids)}}
    taken = _take_so_many(len(ids)).run(connection_of(session), values)
    if not taken:
        return []
    names = ("now", "rank", *TAKEN)
    rows = sorted((dict(zip(names, row, strict=True)) for row in taken), key=lambda row: (row["rank"], row["id"]))
    claimed = [
        ClaimedJob(
            **{name: row[name] for name in TAKEN if name != "recipe"}, recipe=Recipe.model_validate(row["recipe"]), owner=owner
        )
        for row in rows
    ]
    changed = [
        ChangedJob(job.id, job.model, job.priority_class, job.tenant_id, job.batch_id, job.attempt, job.cost_s) for job in claimed
    ]
    count(session, changed, JobState.QUEUED, JobState.RUNNING)
    now = rows[0]["now"]
    open_attempts(session, changed, owner, now)
    told = [("job.claimed", job.id, job.tenant_id, {"attempt": job.attempt, "owner": owner}) for job in changed]
    append_many(session, told, at=now)  # type: ignore[arg-type]
    return claimed


def _models(serves: Collection[str]) -> dict[str, str]:
    return {f"model_{number}": model for number, model in enumerate(serves)}


def _one(statement: CompiledStatement, sql: Connection, values: dict[str, Any]) -> Any:
    """The only value of the first row, or None."""
    rows = statement.run(sql, values)
    return rows[0][0] if rows else None
