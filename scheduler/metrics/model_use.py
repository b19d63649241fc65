"""The catalogue's models as workers reported them: the state of each, and the workers that serve it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from imagefarm.states import WorkerState
from imagefarm.store.models import Model, Worker


@dataclass(frozen=True, slots=True)
class ModelUse:
    """Facts that workers learned about a model (None: never reported), and how many workers serve it or have it in memory."""

    learnt: Model | None
    workers: int
    resident: int

    @property
    def state(self) -> str:
        return self.learnt.state if self.learnt else "unknown"


def read_model_use(session: Session, names: Iterable[str]) -> dict[str, ModelUse]:
    """The use of these models, by name."""
    learnt = {row.name: row for row in session.scalars(select(Model))}
    alive = session.execute(select(Worker.serves, Worker.resident).where(Worker.state != WorkerState.OFFLINE)).all()
    return {
        name: ModelUse(
            learnt.get(name),
            workers=sum(name in serves for serves, _ in alive),
            resident=sum(name in resident for _, resident in alive),
        )
        for name in names
    }
