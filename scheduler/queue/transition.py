"""The only place where a job's state changes: conditional update, counters, attempt, audit event, in one transaction.

Every function takes the caller's session and runs inside its write transaction. A change that finds the job in an unexpected
state changes nothing and reports it; no caller reads first and writes later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, bindparam, insert, update
from sqlalchemy.orm import Session

from imagefarm.states import ALLOWED_TRANSITIONS, JobState
from imagefarm.store.audit import append_many
from imagefarm.store.compiled import CompiledStatement
from imagefarm.store.dialects import per_dialect
from imagefarm.store.engine import connection_of, db_now
from imagefarm.store.models import Attempt, Backlog, Job

CHUNK = 500
"""Ids in one IN list, well within the limits of SQLite's bound variables and PostgreSQL's planner."""


# compiled once, because every image runs them: see imagefarm.store.compiled
OPEN_ATTEMPT = CompiledStatement(insert(Attempt))
CLOSE_ATTEMPT = CompiledStatement(
    update(Attempt)
    .where(Attempt.job_id == bindparam("of_job"), Attempt.attempt == bindparam("of_attempt"), Attempt.ended_at.is_(None))
    .values(ended_at=db_now(), outcome=bindparam("new_outcome"), reason=bindparam("new_reason"))
)


def _add_to_backlog(insert_into: Any) -> Any:
    statement = insert_into(Backlog)
    return statement.on_conflict_do_update(
        index_elements=["model", "priority_class", "tenant_id"],
        set_={
            "queued": Backlog.queued + statement.excluded.queued,
            "running": Backlog.running + statement.excluded.running,
        },
    )


ADD_TO_BACKLOG = per_dialect(_add_to_backlog)
COUNT = CompiledStatement(ADD_TO_BACKLOG)


@dataclass(frozen=True, slots=True)
class ChangedJob:
    """One job whose state changed."""

    id: str
    model: str
    priority_class: str
    tenant_id: str
    batch_id: str | None
    attempt: int
    cost_s: float

    @property
    def lane_flow(self) -> tuple[str, str, str]:
        return self.model, self.priority_class, self.tenant_id


CHANGED_COLUMNS = (Job.id, Job.model, Job.priority_class, Job.tenant_id, Job.batch_id, Job.attempt, Job.cost_s)


def change_state(
    session: Session,
    where: Sequence[ColumnElement[bool]],
    before: JobState,
    after: JobState,
    *,
    event: str | None,
    data: dict[str, Any] | None = None,
    outcome: str | None = None,
    reason: str | None = None,
    **values: Any,
) -> list[ChangedJob]:
    """Change every job that matches `where` from state `before` to `after`; return those that changed.

    `values` are further columns to set. When `before` is running, the attempt is closed with `outcome` and `reason`. The event
    `event` is written for each job with `data` and its attempt; None: the caller writes one event for all.
    """
    if after not in ALLOWED_TRANSITIONS[before] and after != before:
        raise ValueError(f"{after} may not follow {before}")
    if after.is_final:
        values.setdefault("finished_at", db_now())
    if before is JobState.RUNNING:
        values |= {"owner": None, "lease_until": None}
    statement = update(Job).where(Job.state == before, *where).values(state=after, **values).returning(*CHANGED_COLUMNS)
    changed = [ChangedJob(*row) for row in session.execute(statement)]
    if not changed:
        return []
    count(session, changed, before, after)
    if before is JobState.RUNNING:
        close_attempts(session, changed, outcome or str(after), reason)
    if event is None:
        return changed
    shared = data or {}
    append_many(session, [(event, job.id, job.tenant_id, {"attempt": job.attempt, **shared}) for job in changed])
    return changed


_succeed = (
    update(Job)
    .where(
        Job.id == bindparam("of_job"),
        Job.attempt == bindparam("of_attempt"),
        Job.owner == bindparam("of_owner"),
        Job.state == JobState.RUNNING,
    )
    .values(
        state=JobState.SUCCEEDED,
        owner=None,
        lease_until=None,
        finished_at=db_now(),
        actual_s=bindparam("new_actual_s"),
        error_code=None,
        error_detail=None,
    )
    .returning(Job.finished_at, *CHANGED_COLUMNS)
)
SUCCEED = CompiledStatement(_succeed)
SUCCEED_WARNED = CompiledStatement(_succeed.values(warnings=bindparam("new_warnings")))


def change_state_to_succeeded(
    session: Session, fence: tuple[str, int, str], *, actual_s: float, warnings: list[str] | None = None
) -> float | None:
    """As `change_state`, for a success. Returns the database's time, or None if the attempt was fenced off.

    The caller writes the audit event together with those of the images. `warnings` replace the job's.
    """
    values: dict[str, Any] = {"of_job": fence[0], "of_attempt": fence[1], "of_owner": fence[2], "new_actual_s": actual_s}
    statement = SUCCEED
    if warnings is not None:
        statement, values = SUCCEED_WARNED, values | {"new_warnings": warnings}
    rows = statement.run(connection_of(session), values)
    if not rows:
        return None
    finished_at, *columns = rows[0]
    changed = ChangedJob(*columns)
    count(session, [changed], JobState.RUNNING, JobState.SUCCEEDED)
    close_attempts(session, [changed], "succeeded", None)
    return float(finished_at)


def count(session: Session, jobs: Iterable[ChangedJob], before: JobState | None, after: JobState | None) -> None:
    """Update the backlog's counters for jobs that went from `before` to `after`."""
    left, entered = COUNTED.get(before), COUNTED.get(after)
    numbers = Counter(job.lane_flow for job in jobs)
    for key in sorted(numbers):  # one order in all transactions, so that two of them never deadlock
        change = {"queued": 0, "running": 0}
        if left:
            change[left] -= numbers[key]
        if entered:
            change[entered] += numbers[key]
        add_to_backlog(session, key, **change)


COUNTED: dict[JobState | None, str] = {JobState.QUEUED: "queued", JobState.RUNNING: "running"}


def add_to_backlog(session: Session, key: tuple[str, str, str], *, queued: int = 0, running: int = 0) -> None:
    """Add to one counter row (model, class, tenant), creating it if it is new."""
    if not queued and not running:
        return
    row = {"model": key[0], "priority_class": key[1], "tenant_id": key[2], "queued": queued, "running": running}
    COUNT.run(connection_of(session), row)


def open_attempts(session: Session, jobs: Sequence[ChangedJob], owner: str, at: float) -> None:
    """Insert the attempt rows of jobs that were claimed at that time."""
    rows = [{"job_id": job.id, "attempt": job.attempt, "owner": owner, "claimed_at": at} for job in jobs]
    OPEN_ATTEMPT.run_each(connection_of(session), rows)


def close_attempts(session: Session, jobs: Sequence[ChangedJob], outcome: str, reason: str | None) -> None:
    """Record how the current attempts of these jobs ended."""
    told = {"new_outcome": outcome, "new_reason": reason}
    CLOSE_ATTEMPT.run_each(connection_of(session), [{"of_job": job.id, "of_attempt": job.attempt, **told} for job in jobs])


def chunks(ids: Collection[str]) -> Iterable[list[str]]:
    """Split ids into lists that fit one statement."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]
