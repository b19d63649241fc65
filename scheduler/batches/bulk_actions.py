"""Cancels or retries all jobs that match a filter, a chunk per transaction, and never more than the caller expects.

All ids are read first, without locks. Each transaction then changes a chunk of them by conditional update, with counters and
audit. A job that has ended meanwhile is not changed, and two callers never change the same job twice. An interrupted request can
be repeated: the jobs that it changed no longer match.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from imagefarm.auth import Caller, KeyQuota
from imagefarm.errors import Conflict
from imagefarm.settings import Settings
from imagefarm.states import BatchState, JobState
from imagefarm.store import Store
from imagefarm.store.audit import append
from imagefarm.store.job_access_paths import JobFilter
from imagefarm.store.jobs import matching_ids, visible_job
from imagefarm.store.models import Batch, Job
from scheduler.batches.lifecycle import CHUNK, YIELD_S, reconcile_all_jobs
from scheduler.queue.cancel import cancel_where, retry_where
from scheduler.queue.limits import check_queue
from scheduler.queue.submit import SubmitServices
from scheduler.queue.transition import ChangedJob

CANCELLABLE = (JobState.HELD, JobState.QUEUED, JobState.RUNNING)
"""Job states that can be cancelled."""
RETRYABLE = (JobState.FAILED, JobState.CANCELLED)
"""Job states that can be retried."""
MAX_JOBS = 500_000
"""Jobs that one request can change."""


@dataclass
class BulkReport:
    """The number of jobs that matched, and the number that this request changed: the others had ended meanwhile."""

    matched: int
    changed: int = 0
    models: set[str] = field(default_factory=set)
    """Models of the changed jobs."""


def cancel_matching(store: Store, wanted: JobFilter, *, expected: int | None, by: str) -> BulkReport:
    """Cancel every open job that matches. Running jobs stop within one step.

    `expected` is the number that the caller saw: if more match now, Conflict is raised and nothing is changed. None only counts.
    """
    ids = _matching(store, wanted, CANCELLABLE, expected)
    if expected is None:
        return BulkReport(len(ids))
    return _in_chunks(store, ids, lambda session, where: cancel_where(session, where, by=by))


def retry_matching(
    store: Store, wanted: JobFilter, settings: Settings, *, expected: int | None, by: str, quota: KeyQuota | None = None
) -> BulkReport:
    """Queue every failed or cancelled job that matches again, as new work, and reopen its batch if that was done.

    `expected` is the number that the caller saw: if more match now, Conflict is raised and nothing is changed. None only counts.
    `quota` holds the limits of the calling key. Raises LimitExceeded, before any change, if the jobs do not fit their tenants'
    queues.
    """
    ids = _matching(store, wanted, RETRYABLE, expected)
    if expected is None:
        return BulkReport(len(ids))
    with store.read() as session:
        tenants: Counter[str] = Counter()
        for chunk in _chunks(ids):
            tenants.update(session.scalars(select(Job.tenant_id).where(Job.id.in_(chunk))))
        for tenant_id, number in tenants.items():
            check_queue(session, tenant_id, number, settings, quota=quota)
    batches: set[str] = set()

    def retry(session: Session, where: list[ColumnElement[bool]]) -> list[ChangedJob]:
        changed = retry_where(session, where, by=by)
        batches.update(reopen(session, changed, by=by))
        return changed

    report = _in_chunks(store, ids, retry)
    for batch_id in sorted(batches):
        reconcile_all_jobs(store, batch_id)  # a paused batch holds its jobs again
    return report


def retry_job(services: SubmitServices, caller: Caller, job_id: str) -> Job:
    """Queue one failed or cancelled job again, as new work, and notify its lane. A waiting or running job is not changed.

    Raises NotFound, Conflict if the job has succeeded, LimitExceeded.
    """

    def retry(session: Session) -> Job:
        job = visible_job(session, job_id, caller.tenant_filter)
        if job.state == JobState.SUCCEEDED:
            raise Conflict(f"job {job_id} has already succeeded; submit its recipe with another seed for another picture")
        if JobState(job.state).is_final:
            check_queue(session, job.tenant_id, 1, services.settings, quota=caller.quota)
            reopen(session, retry_where(session, [Job.id == job_id], by=caller.name), by=caller.name)
            session.refresh(job)
        return job

    job = services.store.run_with_retry(retry)
    services.ticket_sender.notify_lane(job.model)
    return job


def reopen(session: Session, changed: Sequence[ChangedJob], *, by: str) -> set[str]:
    """Queue batches that were done again, in the caller's transaction. Returns the ids of all batches of these jobs."""
    ids = {job.batch_id for job in changed if job.batch_id is not None}
    if ids:
        reopened = session.execute(
            update(Batch)
            .where(Batch.id.in_(ids), Batch.state == BatchState.DONE)
            .values(state=BatchState.QUEUED, finished_at=None)
            .returning(Batch.id, Batch.tenant_id)
        ).all()
        for batch_id, tenant_id in reopened:
            append(session, "batch.retried", batch_id, tenant_id, {"by": by})
    return ids


def _matching(store: Store, wanted: JobFilter, states: Sequence[JobState], expected: int | None) -> list[str]:
    """Ids of the matching jobs in one of `states`, oldest first. Raises Conflict if there are more than `expected`."""
    if wanted.states:
        states = [state for state in states if state in wanted.states]
    max_jobs = MAX_JOBS if expected is None else min(expected, MAX_JOBS)
    ids: list[str] = []
    while states:
        with store.read() as session:  # one transaction per page: a long read would keep SQLite from truncating its log
            page = matching_ids(session, wanted, states, after=ids[-1] if ids else "", limit=10 * CHUNK)
        ids += page
        if expected is not None and len(ids) > max_jobs:
            raise Conflict(f"more than {max_jobs} jobs match now; count them again and send the new number")
        if len(page) < 10 * CHUNK:
            break
    return ids


def _in_chunks(
    store: Store, ids: list[str], change: Callable[[Session, list[ColumnElement[bool]]], list[ChangedJob]]
) -> BulkReport:
    report = BulkReport(len(ids))
    for chunk in _chunks(ids):
        changed = store.run_with_retry(lambda session, chunk=chunk: change(session, [Job.id.in_(chunk)]))  # type: ignore[misc]
        report.changed += len(changed)
        report.models |= {job.model for job in changed}
        time.sleep(YIELD_S)
    return report


def _chunks(ids: list[str]) -> list[list[str]]:
    return [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
