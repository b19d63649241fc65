"""`imagefarm models pull` downloads a model's weights to this machine; also lists the models of this machine's catalogue."""

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
"""Configuration, tokenizers and licences; weights only as .safetensors, which cannot contain code."""

VARIANT = re.compile(r"\.(fp16|bf16|fp32|non_ema)(-\d+-of-\d+)?\.safetensors$")


def pull(name: Annotated[str, typer.Argument(help="A model of the catalogue.")]) -> None:
    """Download a model's weights from the hub to this machine, as .safetensors only."""
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
    """The models of this machine's catalogue. Their states are unknown without a farm."""
    entries = Catalogue.read(load_settings().catalogue_file).entries.values()
    return [
        Model(name=entry.name, title=entry.title, family=entry.family, license=entry.license, state="unknown")
        for entry in entries
    ]


def wanted_files(files: list[str], variant: str) -> list[str]:
    """The files of a repository that are downloaded: all small text files, and weights as .safetensors.

    If a repository has folders, a weight file at the top repeats the same model and is left out. In each folder the files of the
    variant are taken, or those without a variant if there are none.
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
    """Download a repository of the hub; return its folder. Raises ConfigurationError."""
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise ConfigurationError("downloading models needs huggingface_hub: `pip install 'imagefarm-server[worker]'`") from None
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        files = HfApi().list_repo_files(source, revision=revision or None)
        folder = snapshot_download(source, revision=revision or None, allow_patterns=wanted_files(files, variant))
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigurationError(f"cannot download {source}: {reason}") from None
    return str(folder)
