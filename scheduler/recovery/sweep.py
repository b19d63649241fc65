"""The sweep: every few seconds, idempotent, in short transactions. It recovers everything from SQL alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import case, func, literal_column, select, text
from sqlalchemy.orm import Session

from imagefarm.logs import get_logger
from imagefarm.settings import Settings
from imagefarm.states import JobState
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append, seal
from imagefarm.store.engine import unlikely
from imagefarm.store.models import Attempt, Backlog, Job, SweepState
from scheduler.queue.retry import requeue_after_crash
from scheduler.queue.transition import change_state
from scheduler.queue.workers import expire_stale_workers
from scheduler.recovery import clock_skew
from scheduler.recovery.backlog import drifts, reconcile_backlog
from scheduler.recovery.breaker import BreakerReport, trip

log = get_logger(__name__)

SWEEP_LOCK = 0x1F_A2
"""PostgreSQL advisory lock. Two concurrent sweeps do no harm, but the second need not run."""
MAX_SEAL_CHUNKS, SEAL_CHUNK_SIZE = 8, 1000
"""Most seal chunks in one sweep, and events in each."""
YIELD_S = 0.005
"""Pause between two chunks, so that other writers get through, in seconds."""
RECONCILE_EVERY = 20
"""Every how many sweeps all open jobs are recounted."""
EXPIRE_CHUNK_SIZE, MAX_EXPIRE_CHUNKS = 500, 4
"""Expired jobs that one statement fails, and how many times one sweep repeats it."""

TOO_LATE = "its time was up before a worker could start it"
TOO_LATE_AGAIN = "its time was up before a worker could start it again; an earlier attempt did not end well"

# states are spelt out as in the partial indexes that serve these statements
LATE = (
    select(Job.id)
    .where(Job.state == literal_column("'running'"), unlikely(Job.lease_until < db_now()))
    .order_by(Job.lease_until)
    .limit(1)
)
EXPIRED = (
    select(Job.id)
    .where(literal_column("job.state IN ('queued', 'held')"), Job.expires_at.is_not(None), unlikely(Job.expires_at < db_now()))
    .order_by(Job.expires_at)
    .limit(EXPIRE_CHUNK_SIZE)
)

TRIED = select(Attempt.job_id).where(Attempt.job_id == Job.id, Attempt.outcome != "released").exists()
"""Whether the job has started at all; an attempt that was given back before its start does not count."""


@dataclass(frozen=True, slots=True)
class InSweep:
    """A step inside the sweep's one transaction, which it must keep short. `run` gets the database's time."""

    name: str
    run: Callable[[Session, float], int]


@dataclass(frozen=True, slots=True)
class AfterSweep:
    """A step after the sweep's transaction, in short transactions of its own. Two sweeps may run it at once."""

    name: str
    run: Callable[[Store], int]


@dataclass(frozen=True, slots=True)
class AfterSeal:
    """A step in one exclusive transaction, after new audit events were sealed."""

    name: str
    run: Callable[[Session], int]


SweepStep = InSweep | AfterSweep | AfterSeal
"""A step that another part of the farm registers. Its type says in which transaction it runs; `run` returns a count."""


@dataclass
class SweepReport:
    """What one sweep found and did."""

    ran: bool = True
    waited_after_gap: bool = False
    clock_jumped_back: bool = False
    requeued: int = 0
    failed: int = 0
    expired: int = 0
    stale_workers: list[str] = field(default_factory=list)
    drift: int = 0
    sealed: int = 0
    stopped: BreakerReport = field(default_factory=BreakerReport)
    steps: dict[str, int] = field(default_factory=dict)
    """Counts by the name of a registered step."""
    lanes: dict[str, int] = field(default_factory=dict)
    """Waiting jobs by model."""


def sweep(store: Store, settings: Settings, steps: Sequence[SweepStep], *, reconcile: bool = False) -> SweepReport:
    """Reap expired leases, fail expired jobs, run the registered steps, seal the audit, and report which lanes have work.

    Steps of one type run in their order. Expiring and sealing use short transactions, because a long one would block every other
    writer.
    """
    reconcile = reconcile and drifts(store)
    expired = _expire(store)
    in_sweep = [step for step in steps if isinstance(step, InSweep)]
    report = store.run_with_retry(
        lambda session: _sweep(session, store.is_sqlite, settings, steps=in_sweep, reconcile=reconcile, expired=expired)
    )
    if not report.ran:
        return report
    for step in steps:
        if isinstance(step, AfterSweep):
            report.steps[step.name] = step.run(store)
    report.sealed = _seal(store)
    for step in steps:
        if isinstance(step, AfterSeal):
            report.steps[step.name] = _run_alone(store, step.run)
    report.lanes = _lanes(store)
    return report


def _seal(store: Store) -> int:
    total = 0
    for _ in range(MAX_SEAL_CHUNKS):
        sealed = _run_alone(store, lambda session: seal(session, SEAL_CHUNK_SIZE))
        total += sealed
        if sealed < SEAL_CHUNK_SIZE:
            break
        time.sleep(YIELD_S)
    return total


def _run_alone(store: Store, work: Callable[[Session], int]) -> int:
    """Run `work` in a transaction, unless another sweep is running."""
    return store.run_with_retry(lambda session: work(session) if _is_alone(session, store.is_sqlite) else 0)


def _is_alone(session: Session, is_sqlite: bool) -> bool:
    """Whether this transaction is the only sweep; on SQLite writers are serialised anyway."""
    return is_sqlite or bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": SWEEP_LOCK}))


def _sweep(
    session: Session, is_sqlite: bool, settings: Settings, *, steps: Sequence[InSweep], reconcile: bool, expired: int
) -> SweepReport:
    report = SweepReport(expired=expired)
    if not _is_alone(session, is_sqlite):
        report.ran = False
        return report
    now = session.scalar(select(db_now())) or 0.0
    state = session.get_one(SweepState, 1)
    if state.last_at and now - state.last_at > max(3 * settings.sweep_interval_s, settings.lease_s / 2):
        # the sweep was away, perhaps with the database: workers may have been unable to renew as well
        state.reap_after = now + settings.lease_s
        append(session, "sweep.gap", "sweep", None, {"seconds": round(now - state.last_at, 1)})
    report.clock_jumped_back = clock_skew.handle_clock_jump(session, state, now, settings)
    state.last_at = now
    report.waited_after_gap = now < state.reap_after
    if not report.waited_after_gap:
        if session.scalar(LATE) is not None:
            _reap(session, settings, report)
        report.stale_workers = expire_stale_workers(session, max(settings.lease_s, 15.0))
    report.stopped = trip(session)
    for step in steps:
        report.steps[step.name] = step.run(session, now)
    if reconcile:
        report.drift = reconcile_backlog(session)
        state.drift += report.drift
    if report.requeued or report.failed or report.expired or report.drift:
        log.info("sweep", requeued=report.requeued, failed=report.failed, expired=report.expired, drift=report.drift)
    if report.stopped.workers or report.stopped.batches:
        log.warning("breaker", workers=report.stopped.workers, batches=report.stopped.batches)
    return report


def _lanes(store: Store) -> dict[str, int]:
    """Waiting jobs by model, after batches were reconciled."""
    waiting = func.sum(Backlog.queued)
    with store.read() as session:
        rows: Any = session.execute(select(Backlog.model, waiting).group_by(Backlog.model).having(waiting > 0))
        return {model: int(jobs) for model, jobs in rows}


def _reap(session: Session, settings: Settings, report: SweepReport) -> None:
    """Requeue the jobs whose lease has expired."""
    reaped = requeue_after_crash(
        session, [Job.lease_until < db_now()], settings, "its lease ran out: the worker hung, died, or lost touch"
    )
    states = dict(session.execute(select(Job.id, Job.state).where(Job.id.in_([job.id for job in reaped]))).all())
    report.failed = sum(1 for value in states.values() if value == JobState.FAILED)
    report.requeued = len(reaped) - report.failed


def _expire(store: Store) -> int:
    """Fail jobs that expired before they started, the longest expired first; return how many."""
    total = 0
    for _ in range(MAX_EXPIRE_CHUNKS):
        looked_at, failed = store.run_with_retry(_expire_some)
        total += failed
        if looked_at < EXPIRE_CHUNK_SIZE:
            break
        time.sleep(YIELD_S)
    return total


def _expire_some(session: Session) -> tuple[int, int]:
    ids = session.scalars(EXPIRED).all()
    failed = 0
    for before in (JobState.QUEUED, JobState.HELD) if ids else ():
        failed += len(
            change_state(
                session,
                [Job.id.in_(ids), Job.expires_at < db_now()],
                before,
                JobState.FAILED,
                event="job.failed",
                data={"reason": "expired"},
                error_code="expired",
                error_detail=case((TRIED, TOO_LATE_AGAIN), else_=TOO_LATE),
            )
        )
    return len(ids), failed
