"""Reads of batches: one batch, and lists."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from imagefarm.errors import NotFound
from imagefarm.states import BatchState, JobState
from imagefarm.store.models import Batch, Job


def visible_batch(session: Session, batch_id: str, tenant_id: str | None) -> Batch:
    """The batch, if it belongs to this tenant (None: any tenant). Raises NotFound."""
    batch = session.get(Batch, batch_id)
    if batch is None or tenant_id not in {None, batch.tenant_id}:
        raise NotFound(f"no batch {batch_id[:60]!r}")
    return batch


def list_batches(
    session: Session,
    tenant_id: str | None,
    *,
    limit: int,
    before: str | None = None,
    states: Sequence[BatchState] = (),
    drafts: str | None = None,
) -> Sequence[Batch]:
    """The newest batches of a tenant (None: any tenant) with an id below `before`, in one of `states` if any are given.

    With `drafts`, only batches that render the finals of that batch.
    """
    statement = select(Batch).order_by(Batch.id.desc()).limit(limit)
    if tenant_id is not None:
        statement = statement.where(Batch.tenant_id == tenant_id)
    if states:
        statement = statement.where(Batch.state.in_(states))
    if before is not None:
        statement = statement.where(Batch.id < before)
    if drafts is not None:
        statement = statement.where(Batch.drafts == drafts)
    return session.scalars(statement).all()


def batch_names(session: Session, tenant_id: str | None, limit: int) -> list[tuple[str, str]]:
    """Id and name of the newest batches of a tenant (None: any tenant)."""
    newest = select(Batch.id, Batch.name).order_by(Batch.id.desc()).limit(limit)
    if tenant_id is not None:
        newest = newest.where(Batch.tenant_id == tenant_id)
    return [(batch_id, name) for batch_id, name in session.execute(newest)]


def batch_name(session: Session, batch_id: str | None) -> str:
    """The name of a batch; empty for None and for a batch that does not exist."""
    return "" if batch_id is None else session.scalar(select(Batch.name).where(Batch.id == batch_id)) or ""


def first_job(session: Session, batch_id: str) -> Job | None:
    """The oldest job of a batch."""
    return session.scalars(select(Job).where(Job.batch_id == batch_id).order_by(Job.id).limit(1)).first()


def queued_models(session: Session, batch_id: str, limit: int = 20) -> Sequence[str]:
    """Models of the batch's queued jobs, at most `limit`."""
    waiting = select(Job.model).where(Job.batch_id == batch_id, Job.state == JobState.QUEUED)
    return session.scalars(waiting.distinct().limit(limit)).all()
