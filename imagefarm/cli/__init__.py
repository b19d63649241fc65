"""The command line `imagefarm`. It talks to a farm over HTTP, or starts services as processes; it imports no service."""

from __future__ import annotations

import sys

from imagefarm.cli.exit_codes import exit_code_of
from imagefarm.cli.groups import app
from imagefarm.cli.output import print_error
from imagefarm.errors import FarmError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line. An expected error becomes one line and an exit code, without a traceback."""
    try:
        app(prog_name="imagefarm")  # also when it runs as `python -m imagefarm`
    except FarmError as error:
        print_error(error)
        sys.exit(exit_code_of(error))
