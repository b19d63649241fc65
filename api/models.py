"""The models of the catalogue, and what the workers have learnt of each."""

from __future__ import annotations

from pydantic import Field
from sqlalchemy import select

from api.context import Farm
from api.routes import Routes
from api.shapes import Answer
from imagefarm.auth import Caller, Scope
from imagefarm.catalogue import Defaults, Limits, ModelEntry
from imagefarm.states import WorkerState
from imagefarm.store.models import Model, Worker

routes = Routes(tag="models")


class ModelAnswer(Answer):
    """A model: what it is, what it allows, and whether it can be used now."""

    name: str
    title: str
    family: str
    license: str
    notes: str
    default: bool = Field(description="True for the model of requests that name none")
    aliases: list[str]
    features: list[str]
    samplers: list[str]
    loras: list[str]
    defaults: Defaults
    limits: Limits
    state: str = Field(description="unknown (not loaded yet), ready, missing or invalid")
    reason: str
    digest: str
    cost_s: float = Field(description="GPU-seconds of one default image: learnt, or a first guess")
    load_s: float | None
    workers: int = Field(description="Workers that serve it now")
    resident: int = Field(description="Workers that have it in memory now")


class ModelList(Answer):
    """Every model of the catalogue."""

    items: list[ModelAnswer]
    next_cursor: None = None


@routes.get("/api/v1/models", scope=Scope.READ, answer=ModelList)
def list_models(farm: Farm, caller: Caller) -> ModelList:
    """List the models."""
    return ModelList(items=_models(farm, list(farm.catalogue.entries.values())))


@routes.get("/api/v1/models/{name}", scope=Scope.READ, answer=ModelAnswer, errors=(422,))
def get_model(farm: Farm, caller: Caller, name: str) -> ModelAnswer:
    """Get a model by its name or an alias."""
    return _models(farm, [farm.catalogue.get(name)])[0]


def _models(farm: Farm, entries: list[ModelEntry]) -> list[ModelAnswer]:
    with farm.store.read() as session:
        learnt = {row.name: row for row in session.scalars(select(Model))}
        alive = session.execute(select(Worker.serves, Worker.resident).where(Worker.state != WorkerState.GONE)).all()
    answers = []
    for entry in entries:
        row = learnt.get(entry.name)
        answers.append(
            ModelAnswer(
                name=entry.name,
                title=entry.title,
                family=entry.family,
                license=entry.license,
                notes=entry.notes,
                default=entry.name == farm.catalogue.default,
                aliases=list(entry.aliases),
                features=list(entry.features),
                samplers=list(entry.known_samplers),
                loras=[name for name, lora in farm.catalogue.loras.items() if entry.family in lora.families],
                defaults=entry.defaults,
                limits=entry.limits,
                state=row.state if row else "unknown",
                reason=row.reason if row else "",
                digest=row.digest if row else "",
                cost_s=(row.cost_s if row else None) or entry.cost_s,
                load_s=row.load_s if row else None,
                workers=sum(entry.name in serves for serves, _ in alive),
                resident=sum(entry.name in resident for _, resident in alive),
            )
        )
    return answers
