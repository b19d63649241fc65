"""`imagefarm version`."""

from __future__ import annotations

import typer

from imagefarm.version import __version__


def register(app: typer.Typer) -> None:
    app.command()(version)


def version() -> None:
    """Show the version."""
    print(__version__)
