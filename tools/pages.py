"""Write the pages that are generated from the code: docs/settings.md and the pages of docs/cli.

`make docs` runs it. A test compares the pages with its output.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import typer
from pydantic_core import PydanticUndefined

from imagefarm.cli.exit_codes import MEANING
from imagefarm.cli.groups import Group, groups, make_app
from imagefarm.settings import ENV_PREFIX, Settings

DOCS = Path(__file__).resolve().parent.parent / "docs"

SETTINGS_HEAD = """# Settings

Generated from `imagefarm/settings.py` by `make docs`.

Flags override the environment (`IMAGEFARM_` and the name in capitals; lists as JSON), and the environment overrides
`imagefarm.toml` in the current folder. `imagefarm settings` shows each value and its origin. Times are in seconds, sizes in
bytes unless the name says otherwise.

| setting | default | meaning |
|---|---|---|
"""
CLI_HEAD = """# Command line

Generated from the commands by `make docs`. Results go to standard output, everything else to standard error; `--json` writes JSON
for programs.

"""
CLI_GROUPS = """| page | commands |
|---|---|
"""
CLI_CODES = """
| exit code | meaning |
|---|---|
"""
CLI_FARM = """
Commands that talk to a farm use the first URL of these: `--url`, `IMAGEFARM_URL`, the profile's URL, the URL of a farm that runs
on this machine's data folder, `http://127.0.0.1:8000`. The key is `--key`, `IMAGEFARM_API_KEY` or the profile's key. A profile's
key is sent only to the profile's URL.

`imagefarm profiles add shop --url https://farm.example` stores a URL and its key under a name, in a file that only you can read.
`imagefarm --profile shop submit "a red mug"` uses them; `IMAGEFARM_PROFILE=shop` sets the profile for a whole session.

`imagefarm --install-completion` adds completion to the shell it is called from (bash, zsh, fish or PowerShell); `imagefarm
--show-completion` only writes its script. Commands, options, profiles and the farm's models complete.
"""


def settings_page() -> str:
    """docs/settings.md."""
    lines = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is PydanticUndefined else field.default
        if field.default_factory is not None:
            default = field.default_factory()
        shown = f"`{default}`" if default not in ("", None) else ""
        lines.append(f"| `{name}` | {shown} | {field.description or ''} |\n")
    return SETTINGS_HEAD + "".join(lines) + f"\nThe environment of `port`, for example, is `{ENV_PREFIX}PORT`.\n"


def cli_index() -> str:
    """docs/cli/README.md."""
    codes = "".join(f"| {code:d} | {meaning} |\n" for code, meaning in MEANING.items())
    rows = "".join(f"| [{group.title}]({group.name}.md) | {_commands_of(group)} |\n" for group in groups())
    return CLI_HEAD + CLI_GROUPS + rows + CLI_FARM + CLI_CODES + codes


def cli_page(group: Group) -> str:
    """The page of a group of commands."""
    head = "Generated from the commands by `make docs`. [Command line](README.md) has what holds for all commands."
    return f"# {group.title}\n\n{head}\n" + "".join(_sections(_command(group), "imagefarm"))


def _command(group: Group) -> Any:
    return typer.main.get_command(make_app([group]))


def _commands_of(group: Group) -> str:
    return ", ".join(f"`{name}`" for name in _command(group).commands)


def _sections(command: Any, path: str) -> list[str]:
    # Typer vendors a copy of Click, so its classes cannot be named here
    inner = getattr(command, "commands", None)
    sections = []
    if path != "imagefarm":
        with command.context_class(command, info_name=path, terminal_width=100, max_content_width=100) as context:
            sections.append(f"\n## {path}\n\n```\n{command.get_help(context).rstrip()}\n```\n")
    for name, further in (inner or {}).items():
        sections += _sections(further, f"{path} {name}")
    return sections


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "cli/README.md": cli_index,
    **{f"cli/{group.name}.md": partial(cli_page, group) for group in groups()},
}


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).parent.mkdir(exist_ok=True)
        (DOCS / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
