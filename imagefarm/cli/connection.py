"""Chooses the farm of a command: --url, IMAGEFARM_URL, the profile, the farm of this machine's data folder, or the default
URL."""

from __future__ import annotations

from typing import Annotated

import typer

from imagefarm.cli.local_farm import local_farm_url
from imagefarm.cli.output import note
from imagefarm.cli.profiles import get_profile, read_profiles
from imagefarm.client import Client
from imagefarm.errors import FarmError

Url = Annotated[str | None, typer.Option("--url", envvar="IMAGEFARM_URL", help="The farm's address.", show_envvar=True)]
Key = Annotated[str | None, typer.Option("--key", envvar="IMAGEFARM_API_KEY", help="API key.", show_envvar=True)]

RETRIES = 4
"""Number of retries: about four seconds, enough for an API that restarts."""
COMPLETION_TIMEOUT_S = 1.0
"""Seconds. Longest wait for a completion after Tab."""


class Chosen:
    """The profile given to this run of the command line."""

    profile: str | None = None


def complete_profile(incomplete: str) -> list[str]:
    """Names of profiles, for shell completion."""
    try:
        return sorted(name for name in read_profiles() if name.startswith(incomplete))
    except FarmError:
        return []


def complete_model(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the farm's models, for shell completion; none if no farm responds in time."""
    Chosen.profile = context.find_root().params.get("profile")
    try:
        with connect(
            context.params.get("url"), context.params.get("key"), retries=0, timeout_s=COMPLETION_TIMEOUT_S, quiet=True
        ) as farm:
            return sorted(model.name for model in farm.models.list() if model.name.startswith(incomplete))
    except FarmError:
        return []


def choose_profile(
    profile: Annotated[
        str | None,
        typer.Option(
            envvar="IMAGEFARM_PROFILE",
            show_envvar=True,
            metavar="NAME",
            help="The farm to talk to; see `imagefarm profiles`.",
            autocompletion=complete_profile,
        ),
    ] = None,
) -> None:
    """A self-hosted render farm for text-to-image diffusion."""
    Chosen.profile = profile or None


def connect(
    url: str | None, key: str | None, *, retries: int | None = None, timeout_s: float = 30.0, quiet: bool = False
) -> Client:
    """A client of the chosen farm. --url, --key and their environment variables override the profile.

    The key of a profile is sent only to the profile's own address.
    """
    if Chosen.profile is not None:
        profile = get_profile(Chosen.profile)
        if url is None or url.rstrip("/") == profile.url.rstrip("/"):
            url, key = profile.url, key or profile.key
        elif not quiet:
            note(f"imagefarm: asking {url}, as --url or IMAGEFARM_URL says, without the key of profile {Chosen.profile}")
    return Client(url or local_farm_url(), key, retries=RETRIES if retries is None else retries, timeout_s=timeout_s)
