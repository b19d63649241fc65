"""Submits many jobs together, for batches: checked against the limits as a whole, then written in a few statements.

A single job is submitted by `scheduler.queue.submit`. Both write what `scheduler.queue.new_job` makes, and a test compares the
rows that they leave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from imagefarm.auth import KeyQuota
from imagefarm.settings import Settings
from imagefarm.states import JobState
from imagefarm.store import db_now
from imagefarm.store.audit import append_many
from imagefarm.store.bulk_insert import insert_many
from imagefarm.store.models import Job, Model
from scheduler.assets.store import record_use
from scheduler.queue.limits import check_limits, record_usage
from scheduler.queue.new_job import NewJob
from scheduler.queue.transition import add_to_backlog

NOW = select(db_now())
LEARNT_COSTS = select(Model.name, Model.cost_s).where(Model.cost_s.is_not(None))


def learnt_costs(session: Session) -> dict[str, float]:
    """Learned GPU-seconds of one default image, by model."""
    return dict(session.connection().execute(LEARNT_COSTS).all())  # type: ignore[arg-type]


def submit_jobs(session: Session, jobs: Sequence[NewJob], settings: Settings, *, quota: KeyQuota | None = None) -> None:
    """Write jobs of one tenant with their counters and audit events, in the caller's transaction. A commit makes them durable.

    `quota` holds the limits of the submitting key. Raises LimitExceeded or InvalidRequest if the jobs do not fit the limits; then
    nothing is written.
    """
    if not jobs:
        return
    now = session.connection().scalar(NOW) or 0.0
    check_limits(session, jobs, settings, now, quota=quota)
    quota_id = None if quota is None else quota.quota_id
    insert_many(session, Job, [job.columns_at(now, quota_id) for job in jobs])
    record_use(session, [(job.id, job.recipe) for job in jobs])
    queued = Counter((job.model, job.priority_class, job.tenant_id) for job in jobs if job.state == JobState.QUEUED)
    for lane_flow in sorted(queued):  # one order in all transactions, so that two of them never deadlock
        add_to_backlog(session, lane_flow, queued=queued[lane_flow])
    record_usage(
        session, jobs[0].tenant_id, now, sum(job.count for job in jobs), sum(job.cost_s for job in jobs), quota_id=quota_id
    )
    append_many(
        session,
        [("job.submitted", job.id, job.tenant_id, {"recipe_hash": job.recipe_hash, "model": job.model}) for job in jobs],
    )
