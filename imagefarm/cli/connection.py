"""Which farm a command talks to: --url, IMAGEFARM_URL, the farm that runs on the data folder here, else the usual address."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from imagefarm.client import Client
from imagefarm.settings import load_settings

Url = Annotated[str | None, typer.Option("--url", envvar="IMAGEFARM_URL", help="The farm's address.", show_envvar=True)]
Key = Annotated[str | None, typer.Option("--key", envvar="IMAGEFARM_API_KEY", help="API key.", show_envvar=True)]

RETRIES = 4
"""About four seconds of patience: an API that restarts is back by then, and nobody wonders why nothing happens."""


def connect(url: str | None, key: str | None) -> Client:
    """A client of the farm that is meant."""
    return Client(url or _farm_here(), key, retries=RETRIES)


def _farm_here() -> str | None:
    where = load_settings().data_dir / "run" / "farm.json"
    try:
        return str(json.loads(where.read_text("utf-8"))["url"])
    except (OSError, ValueError, KeyError):  # none runs here
        return None
