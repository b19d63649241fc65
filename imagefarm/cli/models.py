"""`imagefarm models`, `models warm | unload`: lists the catalogue, and loads and unloads models on workers."""

from __future__ import annotations

from typing import Annotated

import typer

from imagefarm.cli.connection import Key, Url, complete_model, connect
from imagefarm.cli.output import AsJson, note, print_json, print_table
from imagefarm.cli.server_half import ServerGroup, server_half
from imagefarm.client import ConnectionFailedError

Worker = Annotated[str | None, typer.Option(help="Id or name of one worker; the default is all that serve the model.")]


def register(app: typer.Typer) -> None:
    area = typer.Typer(help="List the models, and download their weights.", invoke_without_command=True, cls=ServerGroup)
    area.callback()(models)
    server = server_half()
    if server is not None:
        area.command()(server.model_files.pull)
    for command in (warm, unload):
        area.command()(command)
    app.add_typer(area, name="models")


def models(context: typer.Context, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List the catalogue's models and their states."""
    if context.invoked_subcommand is not None:
        return
    server = server_half()
    try:
        with connect(url, key) as farm:
            found = list(farm.models.list())
    except ConnectionFailedError:
        if server is None:
            raise
        note("no farm answers; this is the catalogue of this machine")
        found = server.model_files.models_of_catalogue()
    if as_json:
        print_json([model.model_dump(mode="json") for model in found])
        return
    print_table(
        ("model", "state", "family", "license", "title", "reason"),
        ((model.name, model.state, model.family, model.license, model.title, model.reason) for model in found),
    )


def warm(
    name: Annotated[str, typer.Argument(help="A model of the catalogue.", autocompletion=complete_model)],
    worker: Worker = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Have workers load a model before a job needs it."""
    with connect(url, key) as farm:
        workers = farm.models.warm(name, worker=worker)
    print(_sentence(name, "is loaded by", len(workers)))


def unload(
    name: Annotated[str, typer.Argument(help="A model of the catalogue.", autocompletion=complete_model)],
    worker: Worker = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Have workers unload a model."""
    with connect(url, key) as farm:
        workers = farm.models.unload(name, worker=worker)
    print(_sentence(name, "is unloaded by", len(workers)))


def _sentence(name: str, what: str, workers: int) -> str:
    return f"{name} {what} {workers} worker{'s' if workers != 1 else ''} when nothing renders there"
