"""Actions on a whole batch: pause, resume, cancel, retry its failed jobs, approve its canary."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from imagefarm.auth import Caller
from imagefarm.store.batches import queued_models, visible_batch
from scheduler.batches import lifecycle
from scheduler.queue.submit import SubmitServices


class BatchAction(StrEnum):
    PAUSE = "pause"
    """Queued jobs are held; running jobs finish."""
    RESUME = "resume"
    CANCEL = "cancel"
    """Every open job is cancelled."""
    RETRY_FAILED = "retry-failed"
    APPROVE = "approve"
    """The jobs after the canary are queued."""


DO: dict[BatchAction, Callable[..., object]] = {
    BatchAction.PAUSE: lifecycle.pause,
    BatchAction.RESUME: lifecycle.resume,
    BatchAction.CANCEL: lifecycle.cancel,
    BatchAction.RETRY_FAILED: lifecycle.retry_failed,
    BatchAction.APPROVE: lifecycle.approve,
}
QUEUES_JOBS = frozenset({BatchAction.RESUME, BatchAction.RETRY_FAILED, BatchAction.APPROVE})


def act_on_batch(services: SubmitServices, caller: Caller, batch_id: str, action: BatchAction) -> None:
    """Apply an action to a batch that the caller may see, and notify the lanes of the jobs that it queues.

    Raises NotFound; Conflict if the batch's state forbids the action.
    """
    with services.store.read() as session:
        tenant_id = visible_batch(session, batch_id, caller.tenant_filter).tenant_id
    DO[action](services.store, batch_id, tenant_id, by=caller.name)
    if action in QUEUES_JOBS:
        with services.store.read() as session:
            models = queued_models(session, batch_id)
        for model in models:
            services.ticket_sender.notify_lane(model)
