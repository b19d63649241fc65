"""The breaker: tells a bad job from a bad worker, and stops the one that is to blame.

A *worker* is to blame when many different jobs failed on it lately and hardly one succeeded, while the farm has another
worker on which work succeeds: it is quarantined, drains, and says so. A death counts once, however many jobs shared the
running set, and what is the job's or the model's own fault does not count: else one table of bad rows could empty the farm.
A *batch* is to blame when its jobs end with the same error again and again, on more than one worker where there is more than
one: what is left of it is held and says so, so that 50,000 rows with one mistake cost a handful of renders.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, distinct, func, literal_column, select, update
from sqlalchemy.orm import Session

from imagefarm.states import BatchState, JobState, WorkerState
from imagefarm.store.audit import append
from imagefarm.store.engine import db_now, rarely
from imagefarm.store.models import IN_TROUBLE, Attempt, Batch, Job, Worker
from scheduler.cancel import hold_where

WINDOW_S = 600.0
"""How far back the breaker looks."""
WORKER_FAILURES = 5
"""Different jobs that must have failed on a worker, or times that it must have died."""
WORKER_RATIO = 0.8
"""Share of its attempts that must have failed."""
BATCH_FAILURES = 8
"""Jobs of a batch that must have failed with one error."""
BATCH_RATIO = 0.8
"""Share of the batch's ended jobs that must have failed with it."""
# spelt out as in its index, which SQLite does not use otherwise
SUCCEEDED: ColumnElement[bool] = literal_column("attempt.outcome = 'succeeded'")
OWN_FAULT = ("cancelled", "expired", "poison")
"""Errors that say nothing about a batch's other rows."""


@dataclass
class BreakerReport:
    """Whom the breaker stopped: worker names, batch ids."""

    workers: list[str] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)


def trip(session: Session) -> BreakerReport:
    """Quarantine bad workers and hold bad batches, in the caller's transaction."""
    report = BreakerReport()
    since = (session.scalar(select(db_now())) or 0.0) - WINDOW_S
    trouble = session.scalar(select(func.count()).select_from(Attempt).where(rarely(Attempt.ended_at > since), IN_TROUBLE))
    if (trouble or 0) < min(WORKER_FAILURES, BATCH_FAILURES):
        return report
    report.workers = _bad_workers(session, since)
    report.batches = _bad_batches(session, since)
    return report


def _bad_workers(session: Session, since: float) -> list[str]:
    troubles: Counter[str] = Counter()
    succeeded: Counter[str] = Counter()
    spans: dict[str, tuple[float, float]] = {}
    columns = (func.count(distinct(Attempt.job_id)), func.count(distinct(Attempt.owner)))
    rows = session.execute(
        select(Worker.name, Attempt.outcome, *columns, func.min(Attempt.ended_at), func.max(Attempt.ended_at))
        .join_from(Attempt, Worker, Worker.id == Attempt.owner)
        .where(rarely(Attempt.ended_at > since), IN_TROUBLE, Attempt.outcome != "failed")
        .group_by(Worker.name, Attempt.outcome)
    )
    for name, outcome, jobs, incarnations, *span in rows:
        first, last = (float(at or since) for at in span)
        troubles[name] += jobs if outcome == "retry" else incarnations
        known = spans.get(name, (first, last))
        spans[name] = min(first, known[0]), max(last, known[1])
    if max(troubles.values(), default=0) >= WORKER_FAILURES:
        good = session.execute(
            select(Worker.name, func.count(distinct(Attempt.job_id)))
            .join_from(Attempt, Worker, Worker.id == Attempt.owner)
            .where(rarely(Attempt.ended_at > since), SUCCEEDED)
            .group_by(Worker.name)
        )
        succeeded.update(dict(good.all()))
    bad: list[str] = []
    for name, number in troubles.items():
        if number < WORKER_FAILURES or number < WORKER_RATIO * (number + succeeded[name]):
            continue
        elsewhere = _successes_elsewhere(session, name, *spans[name])
        if elsewhere:
            reason = f"{number} jobs failed on it in {WINDOW_S / 60:.0f} minutes, while {elsewhere} succeeded elsewhere"
            changed = session.execute(
                update(Worker)
                .where(Worker.name == name, Worker.state != WorkerState.GONE, Worker.wanted == WorkerState.READY)
                .values(wanted=WorkerState.QUARANTINED, reason=reason)
                .returning(Worker.id)
            ).all()
            for (worker_id,) in changed:
                append(session, "worker.quarantined", worker_id, None, {"by": "breaker", "reason": reason})
            if changed:
                bad.append(name)
    return bad


def _successes_elsewhere(session: Session, name: str, first: float, last: float) -> int:
    """Jobs that succeeded on other sound workers while this one had its troubles: a full disk or a lost store hits them all."""
    statement = (
        select(func.count(distinct(Attempt.job_id)))
        .join_from(Attempt, Worker, Worker.id == Attempt.owner)
        .where(
            SUCCEEDED,
            rarely(Attempt.ended_at.between(first, last)),
            Worker.name != name,
            Worker.name.in_(select(Worker.name).where(Worker.state != WorkerState.GONE, Worker.wanted == WorkerState.READY)),
        )
    )
    return session.scalar(statement) or 0


def _bad_batches(session: Session, since: float) -> list[str]:
    live = session.scalar(select(func.count()).select_from(Worker).where(Worker.state != WorkerState.GONE)) or 0
    rows = session.execute(
        select(Job.batch_id, Job.error_code, func.count(distinct(Job.id)), func.count(distinct(Attempt.owner)))
        .join_from(Attempt, Job, Attempt.job_id == Job.id)
        .where(
            rarely(Attempt.ended_at > since),
            IN_TROUBLE,
            Job.state == JobState.FAILED,
            Job.batch_id.is_not(None),
            Job.error_code.not_in(OWN_FAULT),
        )
        .group_by(Job.batch_id, Job.error_code)
        .having(func.count(distinct(Job.id)) >= BATCH_FAILURES)
    ).all()
    stopped = []
    for batch_id, code, number, owners in rows:
        assert batch_id is not None
        ended = session.scalar(
            select(func.count())
            .select_from(Job)
            .where(Job.batch_id == batch_id, Job.state.in_([JobState.FAILED, JobState.SUCCEEDED]))
        )
        if number < BATCH_RATIO * (ended or 0) or owners < min(2, live):
            continue
        if hold_where(session, [Job.batch_id == batch_id], by="breaker"):
            tenant_id = session.scalar(
                update(Batch).where(Batch.id == batch_id).values(state=BatchState.PAUSED).returning(Batch.tenant_id)
            )
            append(session, "batch.stopped", batch_id, tenant_id, {"by": "breaker", "error": code, "failed": number})
            stopped.append(batch_id)
    return stopped
