"""What a person asks of a whole batch: pause, resume, cancel, run its failures again, approve its canary."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from imagefarm.auth import Caller
from imagefarm.store.batches import queued_models, visible_batch
from scheduler.batches import lifecycle
from scheduler.queue.submit import SubmitServices


class BatchAction(StrEnum):
    PAUSE = "pause"
    """What waits is held; what runs finishes."""
    RESUME = "resume"
    CANCEL = "cancel"
    """What has not ended is cancelled."""
    RETRY_FAILED = "retry-failed"
    APPROVE = "approve"
    """The rest of a batch is queued after its canary."""


DO: dict[BatchAction, Callable[..., object]] = {
    BatchAction.PAUSE: lifecycle.pause,
    BatchAction.RESUME: lifecycle.resume,
    BatchAction.CANCEL: lifecycle.cancel,
    BatchAction.RETRY_FAILED: lifecycle.retry_failed,
    BatchAction.APPROVE: lifecycle.approve,
}
QUEUES_JOBS = frozenset({BatchAction.RESUME, BatchAction.RETRY_FAILED, BatchAction.APPROVE})


def act_on_batch(services: SubmitServices, caller: Caller, batch_id: str, action: BatchAction) -> None:
    """Do that to a batch that the caller may see, and notify the lanes of the jobs that it queues.

    Raises NotFound, and Conflict for a batch in a state that forbids it.
    """
    with services.store.read() as session:
        tenant_id = visible_batch(session, batch_id, caller.tenant_filter).tenant_id
    DO[action](services.store, batch_id, tenant_id, by=caller.name)
    if action in QUEUES_JOBS:
        with services.store.read() as session:
            models = queued_models(session, batch_id)
        for model in models:
            services.ticket_sender.notify_lane(model)
