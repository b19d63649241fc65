"""The command line `imagefarm`: it talks to a farm over HTTP, or starts services as processes; it imports none of them."""

from __future__ import annotations

import sys

import typer

from imagefarm.cli import (
    audit,
    batch,
    demo,
    health,
    jobs,
    keys,
    lookup,
    models,
    picks,
    plan,
    services,
    settings,
    submit,
    up,
    users,
    workers,
)
from imagefarm.cli.exit_codes import exit_code_of
from imagefarm.cli.output import print_error
from imagefarm.errors import FarmError

app = typer.Typer(
    name="imagefarm",
    help="A self-hosted render farm for text-to-image diffusion.",
    epilog="Exit codes: 0 done; 1 a job failed or was cancelled; 2 the request is wrong; 3 to 7 the farm cannot start; 8 no "
    "farm answers; 9 it is busy; 10 the key is refused; 11 no such thing; 12 waited too long; 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for area in (up, demo, services, health, submit, batch, picks, jobs, workers, models, plan, lookup, keys, users, audit, settings):
    area.register(app)


def main() -> None:
    """Run the command line; errors made on purpose become one line and an exit code, never a traceback."""
    try:
        app()
    except FarmError as error:
        print_error(error)
        sys.exit(exit_code_of(error))
