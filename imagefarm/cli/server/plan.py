"""`imagefarm plan`: the memory plan of a model. The planner belongs to the worker, so it runs in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess

import typer

from imagefarm.errors import ConfigurationError
from imagefarm.settings import load_settings
from imagefarm.supervisor.services import PYTHON


def register(app: typer.Typer) -> None:
    # the planner parses its own options, including --help
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(context_settings=passed_on)(plan)


def plan(context: typer.Context) -> None:
    """Show how a model would fit into some memory, for example `imagefarm plan z-image-turbo --vram 12` (GiB)."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError("the planner is part of the worker and needs torch: `pip install 'imagefarm-server[worker]'`")
    load_settings()  # reports an invalid setting in one line
    raise typer.Exit(subprocess.run([*PYTHON, "worker.memory.plan", *context.args], check=False).returncode)
