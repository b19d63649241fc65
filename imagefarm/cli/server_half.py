"""The commands that need the farm's code on this machine: they are in the package imagefarm-server.

No other module of the client's command line refers to that package. It is found by its name if it is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from types import ModuleType
from typing import Any

from typer.core import TyperGroup

from imagefarm.errors import ConfigurationError

MODULE = "imagefarm.cli.server"
SERVER_COMMANDS = frozenset(
    {
        "api",
        "audit",
        "demo",
        "health",
        "keys",
        "migrate",
        "models pull",
        "plan",
        "scheduler",
        "settings",
        "tenants",
        "up",
        "users",
        "worker",
    }
)
"""The commands that imagefarm-server brings."""


@cache
def server_half() -> ModuleType | None:
    """The package of the server's commands; None if imagefarm-server is not installed."""
    return importlib.import_module(MODULE) if importlib.util.find_spec(MODULE) else None


class ServerGroup(TyperGroup):
    """A group of commands, some of which may be missing."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that `args` begins with. Raises ConfigurationError for a command that is not installed."""
        path = " ".join([*ctx.command_path.split()[1:], *args[:1]])
        if args[0] not in self.commands and path in SERVER_COMMANDS:
            raise ConfigurationError(
                f"`imagefarm {path}` runs the farm itself, which is not installed: `pip install 'imagefarm-server[worker]'`"
            )
        return super().resolve_command(ctx, args)
