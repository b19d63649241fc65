"""Forward passes that survive errors: out of memory halves a pass; any other error is traced to the job that causes it."""

from __future__ import annotations

from collections.abc import Callable

from imagefarm.logs import get_logger
from scheduler.queue.retry import Failure, FailureClass
from worker.engine.running_set import Slot
from worker.failures import failure_of
from worker.memory.device_cache import free_cached
from worker.memory.micro_batch_limits import MicroBatchLimits

log = get_logger(__name__)

Work = Callable[[list[Slot]], None]


def run_pass(slots: list[Slot], work: Work, *, limits: MicroBatchLimits, size: int, last_resort: Work | None = None) -> None:
    """Run `work(slots)`. `work` must change nothing if it raises.

    Out of memory: free the device's cache and run half as many slots at a time, down to one image; then try `last_resort`.
    Any other error: run each job on its own, so that only the job that causes the error fails. Its failure is stored in it.
    """
    slots = [slot for slot in slots if slot.running]
    if not slots:
        return
    failure = _attempt(slots, work)
    if failure is None:
        return
    if failure.code == "oom":
        free_cached(slots[0].sample.latents.device)
        if len(slots) > 1:
            limits.learn(size, len(slots) // 2)
            log.warning("out of memory: the pass is halved", images=len(slots), next=len(slots) // 2, size=size)
            while slots:
                most = limits.cap(size, len(slots))
                run_pass(slots[:most], work, limits=limits, size=size, last_resort=last_resort)
                slots = slots[most:]
            return
        if last_resort is not None:
            failure = _attempt(slots, last_resort)
            if failure is None:
                return
        slots[0].job.failure = failure
        return
    jobs = list({id(slot.job): slot.job for slot in slots}.values())
    if len(jobs) == 1:
        jobs[0].failure = failure
        return
    for job in jobs:
        run_pass([slot for slot in slots if slot.job is job], work, limits=limits, size=size, last_resort=last_resort)


def _attempt(slots: list[Slot], work: Work) -> Failure | None:
    """Run the pass; return the error or None. The exception is dropped here, because its frames hold the pass's tensors."""
    try:
        work(slots)
    except Exception as error:
        failure = failure_of(error)
        if failure.kind is FailureClass.UNKNOWN:
            log.warning("a pass failed", images=len(slots), jobs=[slot.job.job.id for slot in slots], exc_info=True)
        return failure
    return None
