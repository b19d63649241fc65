"""Handles jumps of the database's clock, for example when its host resumed or was corrected.

Leases use that clock. A jump forward looks like a gap in the sweeps and is treated as one: nothing is reaped for a lease, during
which live workers renew. After a jump back, times in the near future lie far ahead: the lease of a dead worker would hold its
jobs for the length of the jump, and a retry would wait as long. Such times are moved back.
"""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.orm import Session

from imagefarm.settings import Settings
from imagefarm.states import JobState, WorkerState
from imagefarm.store import db_now
from imagefarm.store.audit import append
from imagefarm.store.models import BatchDelivery, Job, SweepState, Webhook, WebhookDelivery, Worker
from scheduler.queue.retry import MAX_BACKOFF_S

MIN_JUMP_S = 1.0
"""Seconds. Leases tolerate smaller corrections of the clock."""


def handle_clock_jump(session: Session, state: SweepState, now: float, settings: Settings) -> bool:
    """True if the clock is behind the last sweep's time. Then every pending time in the far future is moved back."""
    if now >= state.last_at - MIN_JUMP_S:
        return False
    lease = now + settings.lease_s
    state.reap_after = min(state.reap_after, lease)
    session.execute(update(Job).where(Job.state == JobState.RUNNING, Job.lease_until > lease).values(lease_until=lease))
    session.execute(update(Job).where(Job.state == JobState.QUEUED, Job.not_before > now + MAX_BACKOFF_S).values(not_before=now))
    session.execute(
        update(Worker).where(Worker.state != WorkerState.OFFLINE, Worker.heartbeat_at > db_now()).values(heartbeat_at=db_now())
    )
    back_s = state.last_at - now
    for table in (WebhookDelivery, BatchDelivery):
        session.execute(update(table).where(table.state == "waiting").values(next_at=table.next_at - back_s))
    session.execute(update(Webhook).where(Webhook.leased_until > now).values(leased_until=Webhook.leased_until - back_s))
    append(session, "sweep.clock", "sweep", None, {"back_s": round(back_s, 1)})
    return True
