"""The command line's groups of commands. Each group is a page of docs/cli."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import typer

from imagefarm.cli import batch, deliver, jobs, lookup, models, picks, profiles, submit, version, workers
from imagefarm.cli.connection import choose_profile
from imagefarm.cli.exit_codes import MEANING
from imagefarm.cli.server_half import ServerGroup, server_half


class Area(Protocol):
    """A module of commands."""

    def register(self, app: typer.Typer) -> None: ...


@dataclass(frozen=True, slots=True)
class Group:
    """Commands that belong together. `name` is the name of their page."""

    name: str
    title: str
    areas: Sequence[Area]


def groups() -> Sequence[Group]:
    """The groups of commands, in the order of the help. Groups of imagefarm-server are left out if it is not installed."""
    server = server_half()
    client = (
        Group("jobs", "Jobs", (submit, jobs, lookup)),
        Group("batches", "Batches", (batch, picks, deliver)),
        Group("models", "Models", (models,)),
        Group("workers", "Workers", (workers,)),
        Group("profiles", "Profiles", (profiles, version)),
    )
    if server is None:
        return client
    return (
        Group("farm", "Run a farm", (server.up, server.demo, server.services, server.health)),
        *client[:2],
        Group("models", "Models", (models, server.plan)),
        *client[3:],
        Group("accounts", "Keys, users and tenants", (server.keys, server.users, server.tenants)),
        Group("audit", "Audit", (server.audit,)),
        Group("settings", "Settings", (server.settings,)),
    )


def make_app(area_groups: Sequence[Group]) -> typer.Typer:
    """A Typer application of these groups."""
    app = typer.Typer(
        name="imagefarm",
        help="A self-hosted render farm for text-to-image diffusion.",
        epilog="Exit codes: " + "; ".join(f"{code:d} {meaning}" for code, meaning in MEANING.items()) + ".",
        cls=ServerGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(choose_profile)
    for group in area_groups:
        for area in group.areas:
            area.register(app)
    return app


app = make_app(groups())
