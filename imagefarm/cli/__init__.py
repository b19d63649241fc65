"""The command line `imagefarm`: it talks to a farm over HTTP, or starts services as processes; it imports none of them."""

from __future__ import annotations

import sys

import typer

from imagefarm.cli import batch, deliver, jobs, lookup, models, picks, profiles, submit, workers
from imagefarm.cli.connection import choose_profile
from imagefarm.cli.exit_codes import MEANING, exit_code_of
from imagefarm.cli.output import print_error
from imagefarm.cli.server import audit, demo, health, keys, plan, services, settings, tenants, up, users
from imagefarm.errors import FarmError

app = typer.Typer(
    name="imagefarm",
    help="A self-hosted render farm for text-to-image diffusion.",
    epilog="Exit codes: " + "; ".join(f"{code:d} {meaning}" for code, meaning in MEANING.items()) + ".",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.callback()(choose_profile)
for area in (
    up,
    demo,
    services,
    health,
    submit,
    batch,
    picks,
    deliver,
    jobs,
    workers,
    models,
    plan,
    lookup,
    profiles,
    keys,
    users,
    tenants,
    audit,
    settings,
):
    area.register(app)


def main() -> None:
    """Run the command line; errors made on purpose become one line and an exit code, never a traceback."""
    try:
        app(prog_name="imagefarm")  # also when it runs as `python -m imagefarm`
    except FarmError as error:
        print_error(error)
        sys.exit(exit_code_of(error))
