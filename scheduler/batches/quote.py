"""What a batch would cost: the answer to a dry run."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from imagefarm.catalogue import Catalogue
from imagefarm.states import WorkerState
from imagefarm.store.models import Backlog, Worker
from scheduler.admission import learnt_costs
from scheduler.batches.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Pictures, predicted GPU-seconds, and seconds until the last picture if nothing else is submitted.

    `finish_s` is None when no live worker serves the models.
    """

    pictures: int
    gpu_s: float
    ahead_s: float
    finish_s: float | None
    workers: int


def make_quote(session: Session, plan: Plan, catalogue: Catalogue) -> Quote:
    """Predict from the learnt (or first guessed) costs, the jobs that wait, and the workers that serve these models."""
    learnt = learnt_costs(session)
    waiting = session.execute(select(Backlog.model, func.sum(Backlog.queued + Backlog.running)).group_by(Backlog.model)).all()
    # a waiting job is taken for one default image of its model: counting each one's own cost would read a million rows
    ahead_s = 0.0
    for model, jobs in waiting:
        if (entry := catalogue.entries.get(model)) is not None:
            ahead_s += jobs * (learnt.get(model) or entry.cost_s)
    alive = [WorkerState.STARTING, WorkerState.READY, WorkerState.BUSY]
    serving = session.scalars(select(Worker.serves).where(Worker.state.in_(alive))).all()
    workers = sum(1 for serves in serving if (plan.models | {"*"}) & set(serves))
    finish_s = (ahead_s + plan.gpu_s) / workers if workers else None
    return Quote(pictures=plan.images, gpu_s=plan.gpu_s, ahead_s=ahead_s, finish_s=finish_s, workers=workers)
