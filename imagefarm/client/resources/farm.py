"""`farm.models`, `farm.workers`, `farm.prompts`, `farm.status`: the farm itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from imagefarm.client.request import Steps, ask, ask_all, get, given, post
from imagefarm.client.resource import Operation, Resource, TransportT
from imagefarm.client.schemas import Kind, Limits, Model, Queue, Statistics, Suggestion, Worker


def list_models() -> Steps[Sequence[Model]]:
    """List the catalogue, with each model's state."""
    return ask_all(Model, get("/models"))


def get_model(name: str) -> Steps[Model]:
    """Get a model by its name or an alias."""
    return ask(Model, get(f"/models/{name}"))


def warm_model(model: str, *, worker: str | None = None) -> Steps[Sequence[str]]:
    """Ask the workers that serve a model, or one of them, to load it. Returns the ids of those workers."""
    return _send_command(model, "warm", worker)


def unload_model(model: str, *, worker: str | None = None) -> Steps[Sequence[str]]:
    """Ask workers to free the memory of a model. Returns the ids of those workers."""
    return _send_command(model, "unload", worker)


class Models(Resource[TransportT]):
    """`farm.models`."""

    list = Operation(list_models)
    get = Operation(get_model)
    warm = Operation(warm_model)
    unload = Operation(unload_model)


def list_workers() -> Steps[Sequence[Worker]]:
    """List the workers and their jobs."""
    return ask_all(Worker, get("/workers"))


def drain_worker(worker: str, *, reason: str = "") -> Steps[None]:
    """Ask a worker (id or name) to finish its jobs and stop claiming."""
    yield post(f"/workers/{worker}/drain", {"reason": reason})


def quarantine_worker(worker: str) -> Steps[None]:
    """Stop a suspect worker from claiming until it is resumed."""
    yield post(f"/workers/{worker}/quarantine", {})


def resume_worker(worker: str) -> Steps[None]:
    """Allow a drained or quarantined worker to claim again."""
    yield post(f"/workers/{worker}/resume", {})


class Workers(Resource[TransportT]):
    """`farm.workers`."""

    list = Operation(list_workers)
    drain = Operation(drain_worker)
    quarantine = Operation(quarantine_worker)
    resume = Operation(resume_worker)


def enhance_prompt(prompt: str, *, kind: str | None = None, variant: int = 0) -> Steps[Suggestion]:
    """Suggest additions to a prompt for product photography; nothing is submitted."""
    return ask(Suggestion, post("/prompts/enhance", {"prompt": prompt, "kind": kind, "variant": variant}))


def list_kinds(*, model: str | None = None) -> Steps[Sequence[Kind]]:
    """List kinds of images, and the settings that suit each on a model."""
    return ask_all(Kind, get("/prompts/kinds", model=model))


class Prompts(Resource[TransportT]):
    """`farm.prompts`."""

    enhance = Operation(enhance_prompt)
    kinds = Operation(list_kinds)


def get_queue() -> Steps[Queue]:
    """Get the farm's state, its lanes, flows and caps."""
    return ask(Queue, get("/queue"))


def get_limits() -> Steps[Limits]:
    """Get the limits of this key and its tenant, and their use."""
    return ask(Limits, get("/limits"))


def get_statistics(period: Literal["hour", "day", "week"] = "hour") -> Steps[Statistics]:
    """Get the farm's figures over an hour, a day or a week."""
    return ask(Statistics, get("/statistics", period=period))


class Status(Resource[TransportT]):
    """`farm.status`."""

    queue = Operation(get_queue)
    limits = Operation(get_limits)
    statistics = Operation(get_statistics)


def _send_command(model: str, command: str, worker: str | None) -> Steps[Sequence[str]]:
    response = yield post(f"/models/{model}/{command}", given({"worker": worker}))
    workers: Sequence[str] = response["workers"]
    return workers
