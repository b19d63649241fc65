"""`imagefarm models`, `models pull | warm | unload`: the catalogue, its weights on this machine, and who holds them."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from imagefarm.catalogue import Catalogue, ModelEntry
from imagefarm.cli.connection import Key, Url, complete_model, connect
from imagefarm.cli.output import AsJson, note, print_json, print_table
from imagefarm.client import ConnectionFailedError, Model
from imagefarm.errors import ConfigurationError
from imagefarm.settings import load_settings

SMALL_FILES = (".json", ".txt", ".model", ".jinja")
"""Configuration, tokenizers and licences; weights only as .safetensors, which can hold no code."""

Worker = Annotated[str | None, typer.Option(help="Id or name of one worker; without it, all that serve the model.")]
VARIANT = re.compile(r"\.(fp16|bf16|fp32|non_ema)(-\d+-of-\d+)?\.safetensors$")


def register(app: typer.Typer) -> None:
    area = typer.Typer(help="List the models, and fetch their weights.", invoke_without_command=True)
    area.callback()(models)
    for command in (pull, warm, unload):
        area.command()(command)
    app.add_typer(area, name="models")


def models(context: typer.Context, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List the catalogue's models, with their state on the farm."""
    if context.invoked_subcommand is not None:
        return
    catalogue = Catalogue.read(load_settings().catalogue_file)
    try:
        with connect(url, key) as farm:
            found = list(farm.models())
    except ConnectionFailedError:
        note("no farm answers; this is the catalogue of this machine")
        found = [_from_file(entry) for entry in catalogue.entries.values()]
    if as_json:
        print_json([model.model_dump(mode="json") for model in found])
        return
    print_table(
        ("model", "state", "family", "license", "title", "reason"),
        ((model.name, model.state, model.family, model.license, model.title, model.reason) for model in found),
    )


def pull(name: Annotated[str, typer.Argument(help="A model of the catalogue.")]) -> None:
    """Fetch a model's weights from the hub to this machine, as .safetensors only."""
    catalogue = Catalogue.read(load_settings().catalogue_file)
    entry = catalogue.get(name)
    sources = [(entry.source, entry.revision, entry.variant)]
    if entry.adapter is not None:
        sources.append((entry.adapter.source, entry.adapter.revision, ""))
    for source, revision, variant in sources:
        if catalogue.local_path(source) is not None:
            note(f"{source} is a path of this machine; there is nothing to fetch")
            continue
        print(_fetch(source, revision, variant))


def warm(
    name: Annotated[str, typer.Argument(help="A model of the catalogue.", autocompletion=complete_model)],
    worker: Worker = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Have workers load a model before anybody asks for it."""
    with connect(url, key) as farm:
        told = farm.warm(name, worker=worker)
    print(_told(name, "is loaded by", len(told)))


def unload(
    name: Annotated[str, typer.Argument(help="A model of the catalogue.", autocompletion=complete_model)],
    worker: Worker = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Have workers free the memory that a model takes."""
    with connect(url, key) as farm:
        told = farm.unload(name, worker=worker)
    print(_told(name, "is let go by", len(told)))


def _told(name: str, what: str, workers: int) -> str:
    return f"{name} {what} {workers} worker{'s' if workers != 1 else ''} when nothing renders there"


def wanted_files(files: list[str], variant: str) -> list[str]:
    """Which of a repository's files are fetched.

    All small text files, and the .safetensors: in a repository of folders those in folders (a lone file at the top is the
    same model again), and of each folder those of the variant where it has one, else those of none.
    """
    weights = [file for file in files if file.endswith(".safetensors")]
    if "model_index.json" in files:
        weights = [file for file in weights if "/" in file]
    with_variant = {file.rpartition("/")[0] for file in weights if _variant(file) == variant} if variant else set()
    weights = [file for file in weights if _variant(file) == (variant if file.rpartition("/")[0] in with_variant else "")]
    return sorted([file for file in files if file.endswith(SMALL_FILES)] + weights)


def _variant(file: str) -> str:
    found = VARIANT.search(file)
    return found[1] if found else ""


def _fetch(source: str, revision: str, variant: str) -> str:
    """Fetch a repository of the hub; return the folder. Raises ConfigurationError."""
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise ConfigurationError("fetching models needs huggingface_hub: `pip install 'imagefarm[worker]'`") from None
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        files = HfApi().list_repo_files(source, revision=revision or None)
        folder = snapshot_download(source, revision=revision or None, allow_patterns=wanted_files(files, variant))
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigurationError(f"cannot fetch {source}: {reason}") from None
    return str(folder)


def _from_file(entry: ModelEntry) -> Model:
    return Model(name=entry.name, title=entry.title, family=entry.family, license=entry.license, state="unknown")
