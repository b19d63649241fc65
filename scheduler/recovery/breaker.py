"""The breaker: tells a bad job from a bad worker and stops the one at fault.

A *worker* is quarantined when jobs fail on it but succeed on other workers: many different jobs failed on it recently and hardly
any succeeded. A death counts once, however many jobs shared the running set. Failures that are the job's or the model's own
fault do not count, or one table of bad rows could empty the farm. A *batch* is held when its jobs keep failing with the same
error, on more than one worker where there are several; 50,000 rows with one mistake then cost a handful of renders.

After an operator resumes either, only later failures count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, distinct, func, literal_column, select, update
from sqlalchemy.orm import Session

from imagefarm.states import JobState, WorkerState
from imagefarm.store.audit import append
from imagefarm.store.engine import db_now, unlikely
from imagefarm.store.models import IS_FAILURE, Attempt, Event, Job, Worker
from scheduler.batches import lifecycle

WINDOW_S = 600.0
"""Seconds of history that the breaker considers."""
WORKER_FAILURES = 5
"""Different jobs that must have failed on a worker, or deaths of the worker."""
WORKER_RATIO = 0.8
"""Share of its attempts that must have failed."""
BATCH_FAILURES = 8
"""Jobs of a batch that must have failed with one error."""
BATCH_RATIO = 0.8
"""Share of the batch's ended jobs that must have failed with it."""
# spelt out as in its index; SQLite does not use it otherwise
SUCCEEDED: ColumnElement[bool] = literal_column("attempt.outcome = 'succeeded'")
OWN_FAULT = ("cancelled", "expired", "poison")
"""Errors that say nothing about a batch's other rows."""


@dataclass
class BreakerReport:
    """What the breaker stopped: worker names, batch ids."""

    workers: list[str] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)


def trip(session: Session) -> BreakerReport:
    """Quarantine bad workers and hold bad batches, in the caller's transaction."""
    report = BreakerReport()
    since = (session.scalar(select(db_now())) or 0.0) - WINDOW_S
    failures = session.scalar(select(func.count()).select_from(Attempt).where(unlikely(Attempt.ended_at > since), IS_FAILURE))
    if (failures or 0) < min(WORKER_FAILURES, BATCH_FAILURES):
        return report
    report.workers = _bad_workers(session, since)
    report.batches = _bad_batches(session, since)
    return report


def _bad_workers(session: Session, since: float) -> list[str]:
    bad: list[str] = []
    for name, seen in _failures(session, since).items():
        if seen.number < WORKER_FAILURES:
            continue
        resumed_at = _last_told(session, "worker.ready", select(Worker.id).where(Worker.name == name))
        # the operator who resumed it knew the earlier failures
        failures = seen if resumed_at <= since else _failures(session, resumed_at, Worker.name == name).get(name, NONE)
        succeeded = _successes(session, max(since, resumed_at), name)
        if failures.number < max(WORKER_FAILURES, WORKER_RATIO * (failures.number + succeeded)):
            continue
        elsewhere = _successes_elsewhere(session, name, failures.first, failures.last)
        if elsewhere:
            reason = f"{failures.number} jobs failed on it in {WINDOW_S / 60:.0f} minutes, while {elsewhere} succeeded elsewhere"
            changed = session.execute(
                update(Worker)
                .where(Worker.name == name, Worker.state != WorkerState.OFFLINE, Worker.desired_state == WorkerState.READY)
                .values(desired_state=WorkerState.QUARANTINED, reason=reason)
                .returning(Worker.id)
            ).all()
            for (worker_id,) in changed:
                append(session, "worker.quarantined", worker_id, None, {"by": "breaker", "reason": reason})
            if changed:
                bad.append(name)
    return bad


class FailureWindow(NamedTuple):
    """Number of failures on a worker, and the times of the first and the last."""

    number: int
    first: float
    last: float


NONE = FailureWindow(0, 0.0, 0.0)


def _failures(session: Session, since: float, *only: ColumnElement[bool]) -> dict[str, FailureWindow]:
    """By worker name: different jobs that failed retryably, and deaths of its incarnations."""
    columns = (func.count(distinct(Attempt.job_id)), func.count(distinct(Attempt.owner)))
    rows = session.execute(
        select(Worker.name, Attempt.outcome, *columns, func.min(Attempt.ended_at), func.max(Attempt.ended_at))
        .join_from(Attempt, Worker, Worker.id == Attempt.owner)
        .where(unlikely(Attempt.ended_at > since), IS_FAILURE, Attempt.outcome != "failed", *only)
        .group_by(Worker.name, Attempt.outcome)
    )
    found: dict[str, FailureWindow] = {}
    for name, outcome, jobs, incarnations, *span in rows:
        first, last = (float(at or since) for at in span)
        known = found.get(name, FailureWindow(0, first, last))
        number = known.number + (jobs if outcome == "retry" else incarnations)
        found[name] = FailureWindow(number, min(first, known.first), max(last, known.last))
    return found


def _successes(session: Session, since: float, name: str) -> int:
    """Jobs that succeeded on a worker."""
    statement = (
        select(func.count(distinct(Attempt.job_id)))
        .join_from(Attempt, Worker, Worker.id == Attempt.owner)
        .where(unlikely(Attempt.ended_at > since), SUCCEEDED, Worker.name == name)
    )
    return session.scalar(statement) or 0


def _last_told(session: Session, kind: str, subjects: Any) -> float:
    """When an event of that kind was last written about one of these; 0 if never."""
    return session.scalar(select(func.max(Event.at)).where(Event.subject.in_(subjects), Event.kind == kind)) or 0.0


def _successes_elsewhere(session: Session, name: str, first: float, last: float) -> int:
    """Successes on other sound workers during this one's failures; a full disk or a lost store would hit them all."""
    statement = (
        select(func.count(distinct(Attempt.job_id)))
        .join_from(Attempt, Worker, Worker.id == Attempt.owner)
        .where(
            SUCCEEDED,
            unlikely(Attempt.ended_at.between(first, last)),
            Worker.name != name,
            Worker.name.in_(
                select(Worker.name).where(Worker.state != WorkerState.OFFLINE, Worker.desired_state == WorkerState.READY)
            ),
        )
    )
    return session.scalar(statement) or 0


def _bad_batches(session: Session, since: float) -> list[str]:
    live = session.scalar(select(func.count()).select_from(Worker).where(Worker.state != WorkerState.OFFLINE)) or 0
    stopped = []
    for seen in _failing_batches(session, since):
        batch_id, code = seen[:2]
        resumed_at, failing, counted_from = _last_told(session, "batch.resumed", [batch_id]), [seen], 0.0
        if resumed_at > since:  # the operator who resumed it knew the earlier failures
            failing = _failing_batches(session, resumed_at, Job.batch_id == batch_id, Job.error_code == code)
            counted_from = resumed_at
        ended = session.scalar(
            select(func.count())
            .select_from(Job)
            .where(
                Job.batch_id == batch_id,
                Job.state.in_([JobState.FAILED, JobState.SUCCEEDED]),
                Job.finished_at > counted_from,
            )
        )
        for _, _, number, owners in failing:
            if (
                number >= BATCH_RATIO * (ended or 0)
                and owners >= min(2, live)
                and lifecycle.stop(session, batch_id, code, number)
            ):
                stopped.append(batch_id)
    return stopped


def _failing_batches(session: Session, since: float, *only: ColumnElement[bool]) -> list[tuple[str, str, int, int]]:
    """Batches of which many jobs failed with one error: id, error, jobs, worker incarnations."""
    rows = session.execute(
        select(Job.batch_id, Job.error_code, func.count(distinct(Job.id)), func.count(distinct(Attempt.owner)))
        .join_from(Attempt, Job, Attempt.job_id == Job.id)
        .where(
            unlikely(Attempt.ended_at > since),
            IS_FAILURE,
            Job.state == JobState.FAILED,
            Job.batch_id.is_not(None),
            Job.error_code.not_in(OWN_FAULT),
            *only,
        )
        .group_by(Job.batch_id, Job.error_code)
        .having(func.count(distinct(Job.id)) >= BATCH_FAILURES)
    )
    return [(batch_id or "", code or "", number, owners) for batch_id, code, number, owners in rows]
