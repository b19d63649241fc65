"""What the parts of the farm register with the queue and the sweep, which do not import them.

Every process that needs it takes it from here, and so do the tests, so that all run the same farm.
"""

from __future__ import annotations

from imagefarm.settings import Settings
from scheduler.batches import held_reason, sweep_steps
from scheduler.delivery import webhooks
from scheduler.metrics import rollup
from scheduler.queue import pending_reason
from scheduler.queue.pending_reason import PendingReasons
from scheduler.recovery.sweep import AfterSeal, AfterSweep, InSweep, SweepStep

SWEEP_STEPS: tuple[SweepStep, ...] = (
    InSweep("batches_done", sweep_steps.finish_batches),
    InSweep("minutes_rolled_up", rollup.roll),
    AfterSweep("jobs_reconciled", sweep_steps.reconcile_unfinished),
    AfterSeal("webhook_deliveries", webhooks.enqueue_deliveries),
)
"""Everything that a sweep does besides leases, workers, counters and the audit."""

PENDING_MESSAGES = pending_reason.MESSAGES | held_reason.MESSAGES
"""The English sentence of every pending reason, by code."""


def make_pending_reasons(settings: Settings) -> PendingReasons:
    """Explains the jobs of this farm, including those that a batch holds."""
    return PendingReasons(settings, held_reason.explain_held_by_batch)
