"""The predicted cost of a batch, for the response to a dry run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from imagefarm.catalogue import Catalogue
from imagefarm.imaging.channels import Channel
from imagefarm.states import WorkerState
from imagefarm.store.models import Backlog, Worker
from scheduler.batches.reuse import find_rendered
from scheduler.batches.table.incremental import Change, counted
from scheduler.batches.table.table_plan import TablePlan
from scheduler.queue.admission import learnt_costs


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Number of images, number of them that are reused, GPU-seconds of the others and of the jobs ahead, seconds to the last
    image.

    `finish_s` is None when no live worker serves the models.
    """

    pictures: int
    reused: int
    gpu_s: float
    ahead_s: float
    finish_s: float | None
    workers: int
    changes: dict[str, int] | None
    """Number of jobs by change; None unless the batch is an update."""


def make_quote(
    session: Session,
    plan: TablePlan,
    catalogue: Catalogue,
    *,
    reuse_of: str | None,
    is_update: bool,
    channels: Sequence[str | Channel] = (),
) -> Quote:
    """Predict from the learned (or initial) costs, the waiting jobs, and the workers that serve these models.

    `reuse_of` is the tenant whose images may be reused; the plan must then have kept its jobs.
    """
    changes: Counter[Change] = Counter()
    reused, saved_s = _reusable(session, plan, reuse_of, channels=channels, changes=changes) if reuse_of is not None else (0, 0.0)
    gpu_s = plan.gpu_s - saved_s
    learnt = learnt_costs(session)
    waiting = session.execute(select(Backlog.model, func.sum(Backlog.queued + Backlog.running)).group_by(Backlog.model)).all()
    # each waiting job counts as one default image of its model: adding up the jobs' own costs would read a million rows
    ahead_s = 0.0
    for model, jobs in waiting:
        if (entry := catalogue.entries.get(model)) is not None:
            ahead_s += jobs * (learnt.get(model) or entry.cost_s)
    alive = [WorkerState.STARTING, WorkerState.READY, WorkerState.BUSY]
    serving = session.scalars(select(Worker.serves).where(Worker.state.in_(alive))).all()
    workers = sum(1 for serves in serving if (plan.models | {"*"}) & set(serves))
    finish_s = (ahead_s + gpu_s) / workers if workers else None
    return Quote(
        pictures=plan.images,
        reused=reused,
        gpu_s=gpu_s,
        ahead_s=ahead_s,
        finish_s=finish_s,
        workers=workers,
        changes=counted(changes, plan.removed) if is_update else None,
    )


def _reusable(
    session: Session, plan: TablePlan, tenant_id: str, *, channels: Sequence[str | Channel], changes: Counter[Change]
) -> tuple[int, float]:
    """The number of planned images that exist and the GPU-seconds that this saves. Adds the jobs of an update to `changes`."""
    pictures, seconds = 0, 0.0
    reports = {report.row: report for report in plan.reports}
    for chunk in plan.spool:
        rendered = find_rendered(session, tenant_id, {job.recipe_hash for job in chunk.jobs}, channels)
        for job in chunk.jobs:
            base = chunk.bases[job.base]
            change = Change.UNFINISHED if job.change == Change.SAME else Change(job.change or Change.NEW)
            if base.count <= rendered.get(job.recipe_hash, ("", 0))[1]:
                change = Change.REUSED
                pictures += base.count
                seconds += base.cost_s
            changes[change] += 1
            if job.row in reports and (job.change or change is Change.REUSED):
                reports[job.row].changes.add(change)
    return pictures, seconds
