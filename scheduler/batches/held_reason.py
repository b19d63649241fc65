"""Why a batch holds a job: the batch is paused or stopped, waits for approval, or queues its rows step by step."""

from __future__ import annotations

from sqlalchemy.orm import Session

from imagefarm.messages import N_
from imagefarm.states import BatchState
from imagefarm.store.models import Batch, Job
from scheduler.batches.lifecycle import STOPPED
from scheduler.queue.pending_reason import PendingReason

MESSAGES = {
    "batch_stopped": N_("Held: batch '%(batch)s' was stopped because %(failed)s of its jobs failed with %(error)s."),
    "batch_paused": N_("Held: batch '%(batch)s' is paused."),
    "batch_not_approved": N_("Held: the batch is waiting for approval."),
    "batch_entering": N_("Held: the rows of the batch enter the queue step by step."),
}
"""The English sentence of each code, as in `scheduler.queue.pending_reason`."""


def explain_held_by_batch(session: Session, job: Job) -> PendingReason | None:
    """The reason why the job's batch holds it; None for a job without a batch."""
    batch = session.get(Batch, job.batch_id) if job.batch_id else None
    if batch is None:
        return None
    values: dict[str, str | int] = {"batch": batch.name}
    code = "batch_entering"
    if batch.state == BatchState.PAUSED and (stopped := (batch.options or {}).get(STOPPED)):
        code = "batch_stopped"
        values |= {"failed": stopped["failed"], "error": stopped["error"]}
    elif batch.state == BatchState.PAUSED:
        code = "batch_paused"
    elif batch.state == BatchState.HELD:
        code = "batch_not_approved"
    return PendingReason(code, values, (MESSAGES[code],))
