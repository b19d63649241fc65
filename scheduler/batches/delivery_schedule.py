"""Schedules the delivery of a batch to a bucket. `scheduler.batches.export.batch_delivery` uploads the files."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from imagefarm.states import BatchState
from imagefarm.store import db_now
from imagefarm.store.audit import append
from imagefarm.store.models import Batch, BatchDelivery
from scheduler.batches.table.delivery_target import DeliveryTarget


def schedule(session: Session, batch: Batch, target: DeliveryTarget, *, by: str) -> None:
    """Schedule a batch's delivery, in the caller's transaction: at once if the batch is done, otherwise when it is done.

    A second call replaces the target and starts the delivery again.
    """
    values: dict[str, Any] = {
        "tenant_id": batch.tenant_id,
        "bucket": target.bucket,
        "prefix": target.prefix,
        "state": "waiting" if batch.state == BatchState.DONE else "open",
        "tries": 0,
        "next_at": session.scalar(select(db_now())) or 0.0,
        "error": None,
        "finished_at": None,
    }
    if session.get(BatchDelivery, batch.id, with_for_update=True) is None:
        session.execute(insert(BatchDelivery).values(batch_id=batch.id, files=0, sent=0, bytes=0, **values))
    else:
        session.execute(update(BatchDelivery).where(BatchDelivery.batch_id == batch.id).values(**values))
    append(session, "batch.delivery", batch.id, batch.tenant_id, {"by": by, **target.model_dump()})


def due_when_done(session: Session, batch_ids: Collection[str]) -> None:
    """Mark the deliveries of batches that are now done as due, in the sweep's transaction."""
    if batch_ids:
        session.execute(
            update(BatchDelivery)
            .where(BatchDelivery.batch_id.in_(batch_ids))
            .values(state="waiting", tries=0, next_at=db_now(), error=None)
        )
