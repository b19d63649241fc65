"""Cancel and retry by conditional update: exactly one caller wins, and repeating does no harm."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from imagefarm.errors import Conflict, NotFound
from imagefarm.states import JobState
from imagefarm.store import Store
from imagefarm.store.models import Job
from scheduler.queue.transition import ChangedJob, change_state


def cancel_job(store: Store, job_id: str, tenant_id: str | None, *, by: str = "request") -> bool:
    """Cancel a job in any open state; return whether this call did it (False: it was cancelled before).

    A running job is cancelled in SQL at once. Its worker notices within one step, and its writes are fenced off. Raises NotFound
    for
    a job of another tenant (None: any tenant), Conflict for one that already succeeded or failed.
    """
    this_job = [Job.id == job_id] if tenant_id is None else [Job.id == job_id, Job.tenant_id == tenant_id]

    def work(session: Session) -> bool:
        if cancel_where(session, this_job, by=by):
            return True
        state = session.scalar(select(Job.state).where(*this_job))
        if state is None:
            raise NotFound(f"no job {job_id[:60]!r}")
        if state != JobState.CANCELLED:
            raise Conflict(f"job {job_id} has already {state}")
        return False

    return store.run_with_retry(work)


def cancel_where(session: Session, where: Sequence[ColumnElement[bool]], *, by: str) -> list[ChangedJob]:
    """Cancel every matching open job, in the caller's transaction; return the cancelled jobs."""
    changed: list[ChangedJob] = []
    for before in (JobState.HELD, JobState.QUEUED, JobState.RUNNING):
        changed += change_state(
            session, where, before, JobState.CANCELLED, event="job.cancelled", data={"by": by, "was": str(before)}, reason=by
        )
    return changed


def retry_where(session: Session, where: Sequence[ColumnElement[bool]], *, by: str) -> list[ChangedJob]:
    """Queue matching failed and cancelled jobs again as new work, in the caller's transaction."""
    changed: list[ChangedJob] = []
    for before in (JobState.FAILED, JobState.CANCELLED):
        changed += change_state(
            session,
            where,
            before,
            JobState.QUEUED,
            event="job.retried",
            data={"by": by},
            crashes=0,
            not_before=0.0,
            error_code=None,
            error_detail=None,
            finished_at=None,
            expires_at=None,
        )
    return changed
