"""Batch lifecycle: pause, resume, cancel, approve, retry failed jobs.

A batch's state determines the state of its jobs. `reconcile_jobs` changes the jobs to match, one chunk per transaction, so a
batch of 100,000 jobs never blocks other writers. The request reconciles the batch that it changed. If the request's process dies,
the sweep continues (`scheduler.batches.sweep_steps`).

| batch | its waiting jobs |
|---|---|
| validating | held until the last row is stored |
| held | the canary's jobs are queued, the rest are held until approval |
| queued, running | queued |
| paused | held; running jobs finish |
| cancelled | cancelled, and running jobs too |
| done | none |
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from imagefarm.errors import Conflict, NotFound
from imagefarm.logs import get_logger
from imagefarm.states import BatchState, JobState
from imagefarm.store import Store, db_now, job_access_paths
from imagefarm.store.audit import append
from imagefarm.store.models import Batch, Job
from scheduler.queue.cancel import retry_where
from scheduler.queue.transition import change_state

log = get_logger(__name__)

CHUNK = 500
"""Jobs changed per transaction."""
YIELD_S = 0.002
"""Pause between two chunks, in seconds. Without it this thread takes the write lock again before the threads that wait for it."""
MAX_SYNC_JOBS = 5000
"""Jobs of a new batch that are queued before the response; a background thread queues the rest."""

STOPPED = "stopped"
"""Key in the options of a batch that the breaker paused: the jobs' error, and the number of jobs that failed with it."""

StateChange = tuple[JobState, JobState, str]
"""(state before, state after, audit event). A `batch.*` event is written once per chunk, any other event once per job."""
RELEASE_HELD: StateChange = (JobState.HELD, JobState.QUEUED, "batch.released")
S = BatchState
TARGET_STATES: dict[BatchState, list[StateChange]] = {
    S.QUEUED: [RELEASE_HELD],
    S.RUNNING: [RELEASE_HELD],
    S.PAUSED: [(JobState.QUEUED, JobState.HELD, "batch.held")],
    S.CANCELLED: [(before, JobState.CANCELLED, "job.cancelled") for before in (JobState.HELD, JobState.QUEUED, JobState.RUNNING)],
}
"""By batch state: the changes that bring the batch's jobs to their required state."""


def get_for_update(session: Session, batch_id: str, tenant_id: str | None = None) -> Batch:
    """Return the batch, locked for this transaction. Raises NotFound for a batch of another tenant (None: any tenant)."""
    batch = session.get(Batch, batch_id, with_for_update=True)
    if batch is None or (tenant_id is not None and batch.tenant_id != tenant_id):
        raise NotFound(f"no batch {batch_id}")
    return batch


def reopen(session: Session, batch: Batch, *, by: str) -> None:
    """Queue a batch again if it was done, in the caller's transaction. Called when the batch gets further jobs."""
    if batch.state == S.DONE:
        enter(session, batch, S.QUEUED, "batch.reopened", by)


def reconcile_jobs(session: Session, batch_id: str) -> int:
    """Change one chunk of a batch's jobs to their required state; return the number of changed jobs (0: all are there)."""
    batch = get_for_update(session, batch_id)
    for change in TARGET_STATES.get(S(batch.state), []):
        if changed := _change_some(session, batch, change, reason=f"batch {batch.state}"):
            return changed
    if batch.state == S.CANCELLED and batch.finished_at is None:
        batch.finished_at = session.scalar(select(db_now()))
    return 0


def _change_some(session: Session, batch: Batch, change: StateChange, *, reason: str, upto_row: int | None = None) -> int:
    before, after, event = change
    path = job_access_paths.AccessPath((Job.batch_id, Job.state), (batch.id, before))
    where = path.in_range(job_access_paths.IdRange())
    if upto_row is not None:
        where.append(Job.row <= upto_row)
    some = select(Job.id).where(*where).order_by(*path.oldest_first).limit(CHUNK)
    in_some = [Job.id.in_(some.scalar_subquery())]
    if not event.startswith("batch."):
        return len(change_state(session, in_some, before, after, event=event, data={"by": reason}, reason=reason))
    changed = len(change_state(session, in_some, before, after, event=None, reason=reason))
    if changed:
        append(session, event, batch.id, batch.tenant_id, {"by": reason, "jobs": changed})
    return changed


def reconcile_all_jobs(store: Store, batch_id: str, at_most: float = inf) -> int:
    """Reconcile a batch completely, or until about `at_most` jobs changed; return the number of changed jobs."""
    total = 0
    while total < at_most and (changed := store.run_with_retry(lambda session: reconcile_jobs(session, batch_id))):
        total += changed
        time.sleep(YIELD_S)
    return total


def reconcile_jobs_soon(store: Store, batch_id: str) -> None:
    """Reconcile a batch that was just submitted: `MAX_SYNC_JOBS` jobs at once, the rest in a background thread.

    If this process ends, the sweep continues.
    """
    if reconcile_all_jobs(store, batch_id, MAX_SYNC_JOBS) >= MAX_SYNC_JOBS:
        threading.Thread(target=_reconcile_remaining_jobs, args=(store, batch_id), name="reconcile", daemon=True).start()


def _reconcile_remaining_jobs(store: Store, batch_id: str) -> None:
    try:
        reconcile_all_jobs(store, batch_id)
    except SQLAlchemyError as error:
        log.warning("batch.reconcile_failed", batch=batch_id, error=str(error)[:200])


def release_canary(session: Session, batch: Batch, upto_row: int) -> None:
    """Queue the held jobs of the rows up to and including `upto_row`, in the caller's transaction."""
    while _change_some(session, batch, RELEASE_HELD, reason="canary", upto_row=upto_row):
        pass


def pause(store: Store, batch_id: str, tenant_id: str, *, by: str = "request") -> None:
    """Hold the waiting jobs; running jobs finish. Raises NotFound, Conflict."""

    def change(session: Session, batch: Batch) -> None:
        if batch.state != S.PAUSED:
            _expect(batch, "pause", S.QUEUED, S.RUNNING, S.HELD)
            enter(session, batch, S.PAUSED, "batch.paused", by)

    _change(store, batch_id, tenant_id, change)


def stop(session: Session, batch_id: str, error: str, failed: int) -> bool:
    """Pause a batch after `failed` of its jobs failed with the same `error`, in the caller's transaction.

    Return False, and change nothing, if no job of the batch is queued or the batch cannot be paused. The next reconcile holds the
    waiting jobs.
    """
    batch = get_for_update(session, batch_id)
    waits = session.scalar(select(Job.id).where(Job.batch_id == batch_id, Job.state == JobState.QUEUED).limit(1))
    if waits is None or batch.state not in {S.QUEUED, S.RUNNING, S.HELD}:
        return False
    batch.state = S.PAUSED
    batch.options = {**batch.options, STOPPED: {"error": error, "failed": failed}}
    append(session, "batch.stopped", batch.id, batch.tenant_id, {"by": "breaker", "error": error, "failed": failed})
    return True


def resume(store: Store, batch_id: str, tenant_id: str, *, by: str = "request") -> None:
    """Resume a paused batch: all of it, or only its canary if it is not approved yet. Raises NotFound, Conflict."""

    def change(session: Session, batch: Batch) -> None:
        if batch.state in {S.QUEUED, S.RUNNING}:
            return
        if batch.state == S.HELD:
            raise Conflict(f"batch {batch_id} waits for approval of its canary; approve it")
        _expect(batch, "resume", S.PAUSED)
        batch.options = {name: value for name, value in batch.options.items() if name != STOPPED}
        if batch.options.get("approved", True):
            enter(session, batch, S.QUEUED, "batch.resumed", by)
        else:
            enter(session, batch, S.HELD, "batch.resumed", by)
            release_canary(session, batch, int(batch.options["canary_row"]))

    _change(store, batch_id, tenant_id, change)


def approve(store: Store, batch_id: str, tenant_id: str, *, by: str = "request") -> None:
    """Queue the rest of a batch after its canary. A paused batch stays paused. Raises NotFound, Conflict."""

    def change(session: Session, batch: Batch) -> None:
        if batch.options.get("approved", True):
            if batch.options.get("canary"):
                return
            raise Conflict(f"batch {batch_id} has no canary to approve")
        _expect(batch, "approve", S.HELD, S.PAUSED)
        batch.options = {**batch.options, "approved": True}
        enter(session, batch, S.QUEUED if batch.state == S.HELD else S.PAUSED, "batch.approved", by)

    _change(store, batch_id, tenant_id, change)


def cancel(store: Store, batch_id: str, tenant_id: str, *, by: str = "request") -> None:
    """Cancel every open job of a batch. Raises NotFound; Conflict if the batch is done."""

    def change(session: Session, batch: Batch) -> None:
        if batch.state != S.CANCELLED:
            _expect(batch, "cancel", S.VALIDATING, S.HELD, S.QUEUED, S.RUNNING, S.PAUSED)
            enter(session, batch, S.CANCELLED, "batch.cancelled", by)

    _change(store, batch_id, tenant_id, change)


def retry_failed(store: Store, batch_id: str, tenant_id: str, *, by: str = "request") -> int:
    """Queue the failed jobs again as new work; return their number. Raises NotFound, Conflict."""

    def some(session: Session) -> int:
        batch = get_for_update(session, batch_id, tenant_id)
        _expect(batch, "retry", S.HELD, S.QUEUED, S.RUNNING, S.PAUSED, S.DONE)
        failed = select(Job.id).where(Job.batch_id == batch_id, Job.state == JobState.FAILED).order_by(Job.id).limit(CHUNK)
        changed = retry_where(session, [Job.id.in_(failed.scalar_subquery()), Job.state == JobState.FAILED], by=by)
        if changed and batch.state == S.DONE:
            enter(session, batch, S.QUEUED, "batch.retried", by)
        return len(changed)

    total = 0
    with store.read() as session:
        failed_now = session.scalar(
            select(func.count()).select_from(Job).where(Job.batch_id == batch_id, Job.state == JobState.FAILED)
        )
    # stop after the number that had failed at the start: a job may fail again during this loop
    while changed := store.run_with_retry(some):
        total += changed
        if total >= (failed_now or 0):
            break
    reconcile_all_jobs(store, batch_id)
    return total


def _change(store: Store, batch_id: str, tenant_id: str, change: Callable[[Session, Batch], None]) -> None:
    store.run_with_retry(lambda session: change(session, get_for_update(session, batch_id, tenant_id)))
    reconcile_all_jobs(store, batch_id)


def _expect(batch: Batch, act: str, *states: BatchState) -> None:
    if batch.state not in states:
        raise Conflict(f"cannot {act} batch {batch.id}: it is {batch.state}; possible when it is {', '.join(states)}")


def enter(session: Session, batch: Batch, state: BatchState, event: str, by: str) -> None:
    """Set the state of a locked batch, clear its end time and write the audit event, in the caller's transaction."""
    batch.state = state
    batch.finished_at = None
    append(session, event, batch.id, batch.tenant_id, {"by": by})


STARTED = [JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED]


def counts(session: Session, batches: list[Batch]) -> dict[str, dict[str, int]]:
    """By batch id: rows, jobs, accepted, rejected, jobs that reuse images, and jobs by state."""
    result: dict[str, dict[str, int]] = {}
    for batch in batches:
        result[batch.id] = {
            "rows": batch.rows,
            "jobs": batch.accepted + batch.rejected,
            "accepted": batch.accepted,
            "rejected": batch.rejected,
            "reused": 0,
        } | {str(state): 0 for state in JobState}
    rows: Any = session.execute(
        select(Job.batch_id, Job.state, func.count(), func.count(Job.reuses))
        .where(Job.batch_id.in_(list(result)))
        .group_by(Job.batch_id, Job.state)
    )
    for batch_id, state, number, reused in rows:
        result[batch_id][state] = number
        result[batch_id]["reused"] += reused
    return result
