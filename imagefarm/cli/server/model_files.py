"""`imagefarm models pull`: a model's weights on this machine; and the models of this machine's catalogue."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from imagefarm.catalogue import Catalogue
from imagefarm.cli.output import note
from imagefarm.client import Model
from imagefarm.errors import ConfigurationError
from imagefarm.settings import load_settings

SMALL_FILES = (".json", ".txt", ".model", ".jinja")
"""Configuration, tokenizers and licences; weights only as .safetensors, which can hold no code."""

VARIANT = re.compile(r"\.(fp16|bf16|fp32|non_ema)(-\d+-of-\d+)?\.safetensors$")


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


def models_of_catalogue() -> list[Model]:
    """The models of this machine's catalogue, whose state no farm has reported."""
    entries = Catalogue.read(load_settings().catalogue_file).entries.values()
    return [
        Model(name=entry.name, title=entry.title, family=entry.family, license=entry.license, state="unknown")
        for entry in entries
    ]


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
        raise ConfigurationError("fetching models needs huggingface_hub: `pip install 'imagefarm-server[worker]'`") from None
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        files = HfApi().list_repo_files(source, revision=revision or None)
        folder = snapshot_download(source, revision=revision or None, allow_patterns=wanted_files(files, variant))
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigurationError(f"cannot fetch {source}: {reason}") from None
    return str(folder)
