"""Leases: renewed while steps advance, expired when a worker is known or presumed dead."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import bindparam, update
from sqlalchemy.orm import Session

from imagefarm.settings import Settings
from imagefarm.states import JobState
from imagefarm.store import Store, db_now
from imagefarm.store.models import Job
from scheduler.queue.retry import requeue_after_crash
from scheduler.queue.transition import chunks


def renew(store: Store, owner: str, job_ids: Collection[str], lease_s: float) -> set[str]:
    """Renew the leases of `job_ids` held by `owner`; return those that it still holds.

    A missing job was cancelled, expired or claimed by another worker: stop rendering it. Call this only after the denoising loop
    has advanced, because an unconditional renewal would keep a hung job alive forever.
    """
    held: set[str] = set()

    def work(session: Session) -> set[str]:
        for ids in chunks(job_ids):
            statement = (
                update(Job)
                .where(Job.id.in_(ids), Job.owner == owner, Job.state == JobState.RUNNING)
                .values(lease_until=db_now() + bindparam("lease_s", lease_s))
                .returning(Job.id)
            )
            held.update(session.scalars(statement))
        return held

    return store.run_with_retry(work, timeout_s=lease_s, durable=False) if job_ids else held


def expire_owner(store: Store, owner: str, settings: Settings, reason: str, *, self_inflicted: bool = False) -> int:
    """Requeue the jobs of a worker incarnation that is known to be dead; return how many."""
    return store.run_with_retry(
        lambda session: len(requeue_after_crash(session, [Job.owner == owner], settings, reason, self_inflicted=self_inflicted))
    )
