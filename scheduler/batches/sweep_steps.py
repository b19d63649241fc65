"""Sweep steps for batches: end batches whose jobs have ended, and complete interrupted requests and submissions."""

from __future__ import annotations

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from imagefarm.logs import get_logger
from imagefarm.states import BatchState, JobState
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append
from imagefarm.store.models import Batch, Job
from scheduler.batches import delivery_schedule, lifecycle

log = get_logger(__name__)

MAX_SWEEP_CHUNKS = 20
"""Chunks of jobs that one sweep changes at most."""
UNFINISHED = [JobState.HELD, JobState.QUEUED, JobState.RUNNING]
STALE_S = 300.0
"""A batch in state validating that has got no job for this time, in seconds, has lost its submitting process."""


def finish_batches(session: Session, _now: float) -> int:
    """End the batches whose last job has ended, in the sweep's transaction; return the number of batches."""
    open_jobs = select(Job.id).where(Job.batch_id == Batch.id, Job.state.in_(UNFINISHED)).exists()
    done = session.execute(
        update(Batch)
        .where(Batch.state.in_([BatchState.QUEUED, BatchState.RUNNING]), ~open_jobs)
        .values(state=BatchState.DONE, finished_at=db_now())
        .returning(Batch.id, Batch.tenant_id)
    ).all()
    for batch_id, tenant_id in done:
        append(session, "batch.done", batch_id, tenant_id, {})
    delivery_schedule.due_when_done(session, [batch_id for batch_id, _ in done])
    return len(done)


def reconcile_unfinished(store: Store) -> int:
    """Reconcile the batches whose jobs do not match their state, up to the limit of one sweep; return the number of jobs."""
    changed = 0
    for batch_id in store.run_with_retry(find_unreconciled):
        changed += lifecycle.reconcile_all_jobs(store, batch_id, MAX_SWEEP_CHUNKS * lifecycle.CHUNK - changed)
    return changed


def find_unreconciled(session: Session) -> list[str]:
    """Cancel batches whose submitting process died, and mark started ones as running; return the ids to reconcile."""
    _give_up_stale(session)
    has_started = select(Job.id).where(Job.batch_id == Batch.id, Job.state.in_(lifecycle.STARTED)).exists()
    session.execute(update(Batch).where(Batch.state == BatchState.QUEUED, has_started).values(state=BatchState.RUNNING))
    # the ORDER BY selects the index: PostgreSQL overestimates the jobs in such a state and would scan the whole table
    misplaced = [
        and_(
            Batch.state == state,
            select(Job.id)
            .where(Job.batch_id == Batch.id, Job.state == before)
            .order_by(Job.batch_id, Job.state, Job.id)
            .limit(1)
            .scalar_subquery()
            .is_not(None),
        )
        for state, changes in lifecycle.TARGET_STATES.items()
        if state != BatchState.CANCELLED  # its end time is set when it is reconciled
        for before, _, _ in changes
    ]
    unfinished = select(Batch.id).where(Batch.state.in_(list(lifecycle.TARGET_STATES)), Batch.finished_at.is_(None))
    return list(session.scalars(unfinished.where(or_(Batch.state == BatchState.CANCELLED, *misplaced)).order_by(Batch.id)))


def _give_up_stale(session: Session) -> None:
    last_job = select(Job.created_at).where(Job.batch_id == Batch.id).order_by(Job.batch_id.desc(), Job.id.desc()).limit(1)
    last_progress = func.coalesce(last_job.scalar_subquery(), Batch.created_at)
    stale = session.scalars(
        select(Batch.id).where(Batch.state == BatchState.VALIDATING, last_progress < db_now() - STALE_S)
    ).all()
    for batch_id in stale:
        log.warning("batch.abandoned", batch=batch_id)
        batch = lifecycle.get_for_update(session, batch_id)
        lifecycle.enter(session, batch, BatchState.CANCELLED, "batch.cancelled", "its submission was not completed")
    session.flush()
