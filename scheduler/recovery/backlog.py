"""Compares the backlog's counters with a recount of the open jobs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import func, literal, literal_column, null, select, union_all
from sqlalchemy.orm import Session

from imagefarm.states import JobState
from imagefarm.store import Store
from imagefarm.store.audit import append
from imagefarm.store.models import Backlog, Job


def drifts(store: Store) -> bool:
    """Whether a counter is wrong. Counting a million jobs takes a second, in which no writer should wait. So this reads without
    locks, in one statement whose snapshot holds both the counters and the jobs.
    """
    kept = select(Backlog.model, Backlog.priority_class, Backlog.tenant_id, literal("kept"), Backlog.queued, Backlog.running)
    true = select(Job.model, Job.priority_class, Job.tenant_id, Job.state, func.count(), null())
    of_a_flow = (Job.model, Job.priority_class, Job.tenant_id, Job.state)
    counted = [
        true.where(Job.state == literal_column(f"'{state}'")).group_by(*of_a_flow)
        for state in (JobState.QUEUED, JobState.RUNNING)
    ]
    numbers: dict[tuple[str, str, str], Counter[str]] = {}
    with store.read() as session:
        rows: Any = session.execute(union_all(kept, *counted))
        for model, priority_class, tenant_id, what, number, running in rows:
            found = numbers.setdefault((model, priority_class, tenant_id), Counter())
            if what == "kept":
                found.subtract({JobState.QUEUED: number, JobState.RUNNING: running})
            else:
                found[what] += number
    return any(any(found.values()) for found in numbers.values())


def reconcile_backlog(session: Session) -> int:
    """Recount the open jobs and correct every wrong counter; return how many were wrong."""
    # lock, then count: a job changed before the lock has its counter committed; a later change waits
    order = (Backlog.model, Backlog.priority_class, Backlog.tenant_id)
    kept = session.scalars(select(Backlog).order_by(*order).with_for_update()).all()
    counted: dict[tuple[str, str, str], dict[str, int]] = {}
    rows = session.execute(
        select(Job.model, Job.priority_class, Job.tenant_id, Job.state, func.count())
        .where(Job.state.in_([JobState.QUEUED, JobState.RUNNING]))
        .group_by(Job.model, Job.priority_class, Job.tenant_id, Job.state)
    )
    for model, priority_class, tenant_id, state, number in rows:
        counted.setdefault((model, priority_class, tenant_id), {})[state] = number
    drift = 0
    for row in kept:
        true = counted.pop((row.model, row.priority_class, row.tenant_id), {})
        queued, running = true.get(JobState.QUEUED, 0), true.get(JobState.RUNNING, 0)
        if (row.queued, row.running) != (queued, running):
            drift += 1
            row.queued, row.running = queued, running
    # the rest has no counter row yet: the transaction that is about to write it adds its own numbers
    if drift:
        append(session, "backlog.drift", "backlog", None, {"rows": drift})
    return drift
