"""The command line `imagefarm`: it talks to a farm over HTTP, or starts services as processes; it imports none of them."""

from __future__ import annotations

import sys

from imagefarm.cli.exit_codes import exit_code_of
from imagefarm.cli.groups import app
from imagefarm.cli.output import print_error
from imagefarm.errors import FarmError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; errors made on purpose become one line and an exit code, never a traceback."""
    try:
        app(prog_name="imagefarm")  # also when it runs as `python -m imagefarm`
    except FarmError as error:
        print_error(error)
        sys.exit(exit_code_of(error))
