"""`imagefarm plan`: how a model would run in how much memory. The planner is the worker's, so it runs as its process."""

from __future__ import annotations

import importlib.util
import subprocess

import typer

from imagefarm.errors import ConfigurationError
from imagefarm.settings import load_settings
from imagefarm.supervisor.services import PYTHON


def register(app: typer.Typer) -> None:
    # its options are the planner's own, --help too
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(context_settings=passed_on)(plan)


def plan(context: typer.Context) -> None:
    """Say how a model would be run in some memory, such as `imagefarm plan z-image-turbo --vram 12` (GiB)."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError("the planner is the worker's and needs torch: `pip install 'imagefarm-server[worker]'`")
    load_settings()  # reports a wrong setting in one line
    raise typer.Exit(subprocess.run([*PYTHON, "worker.memory.plan", *context.args], check=False).returncode)
