"""The models of the catalogue, and their costs and states as measured by the workers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from api.http.context import AppContext
from api.http.routes import Routes, read_body, whole_body
from api.http.schemas import Body, ResponseModel
from imagefarm.auth import Caller, Scope
from imagefarm.model_entry import Defaults, Limits, ModelEntry
from imagefarm.text import check_text
from scheduler.metrics.model_use import read_model_use
from scheduler.queue import workers

routes = Routes(tag="models")


class ModelResponse(ResponseModel):
    """A model: its features, its limits, and whether it can be used now."""

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
    cost_s: float = Field(description="GPU-seconds of one default image: learned, or a first estimate")
    load_s: float | None = Field(description="Duration of the last load in seconds")
    tier: str = Field(description="The memory tier of the last load, see `imagefarm plan`; empty before the first load")
    weights: str = Field(description="full, int8, fp8 or nf4")
    fidelity: str = Field(description="The difference in quality from the released weights")
    bytes: int | None = Field(description="Bytes of the weights on the device")
    workers: int = Field(description="Workers that serve it now")
    resident: int = Field(description="Workers that have it in memory now")


class ModelList(ResponseModel):
    """All models of the catalogue."""

    items: list[ModelResponse]
    next_cursor: None = None


@routes.get("/api/v1/models", scope=Scope.READ, response=ModelList)
def list_models(app_context: AppContext, caller: Caller) -> ModelList:
    """List the models."""
    return ModelList(items=_models(app_context, list(app_context.catalogue.entries.values())))


@routes.get("/api/v1/models/{name}", scope=Scope.READ, response=ModelResponse, errors=(422,))
def get_model(app_context: AppContext, caller: Caller, name: str) -> ModelResponse:
    """Get a model by its name or an alias."""
    return _models(app_context, [app_context.catalogue.get(name)])[0]


class ModelCommandRequest(Body):
    """The worker that gets the command; without it all workers that serve the model."""

    worker: Annotated[str, Field(max_length=255), AfterValidator(check_text)] | None = Field(None, description="Id or name")


class ModelCommandResponse(ResponseModel):
    """The workers that get the command. Each reads it with its next heartbeat and runs it when it renders nothing."""

    model: str
    workers: list[str] = Field(description="Ids")


@routes.post("/api/v1/models/{name}/warm", scope=Scope.FARM, response=ModelCommandResponse, status=202, errors=(422,))
def warm_model(app_context: AppContext, caller: Caller, name: str) -> ModelCommandResponse:
    """Load a model into its workers' memory before a job needs it.

    A JSON body `{"worker": "..."}` limits the command to one worker.
    """
    return _send_command(app_context, caller, name, "warm")


@routes.post("/api/v1/models/{name}/unload", scope=Scope.FARM, response=ModelCommandResponse, status=202, errors=(422,))
def unload_model(app_context: AppContext, caller: Caller, name: str) -> ModelCommandResponse:
    """Unload a model from its workers' memory. The next job that needs it loads it again.

    A JSON body `{"worker": "..."}` limits the command to one worker.
    """
    return _send_command(app_context, caller, name, "unload")


def _send_command(app_context: AppContext, caller: Caller, name: str, do: Literal["warm", "unload"]) -> ModelCommandResponse:
    model = app_context.catalogue.get(name).name
    worker = read_body(ModelCommandRequest).worker if whole_body() else None
    return ModelCommandResponse(
        model=model, workers=workers.send_command(app_context.store, do, model, worker=worker, by=caller.name)
    )


def _models(app_context: AppContext, entries: list[ModelEntry]) -> list[ModelResponse]:
    with app_context.store.read() as session:
        use = read_model_use(session, [entry.name for entry in entries])
    responses = []
    for entry in entries:
        row = use[entry.name].learnt
        facts = row.facts if row else {}
        responses.append(
            ModelResponse(
                name=entry.name,
                title=entry.title,
                family=entry.family,
                license=entry.license,
                notes=entry.notes,
                default=entry.name == app_context.catalogue.default,
                aliases=list(entry.aliases),
                features=list(entry.features),
                samplers=list(entry.known_samplers),
                loras=[name for name, lora in app_context.catalogue.loras.items() if entry.family in lora.families],
                defaults=entry.defaults,
                limits=entry.limits,
                state=use[entry.name].state,
                reason=row.reason if row else "",
                digest=row.digest if row else "",
                cost_s=(row.cost_s if row else None) or entry.cost_s,
                load_s=row.load_s if row else None,
                tier=str(facts.get("tier", "")),
                weights=str(facts.get("weights", "")),
                fidelity=str(facts.get("fidelity", "")),
                bytes=facts.get("bytes"),
                workers=use[entry.name].workers,
                resident=use[entry.name].resident,
            )
        )
    return responses
