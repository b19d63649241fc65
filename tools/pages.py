"""Write the pages that are made from the code: docs/settings.md and docs/cli.md.

`make docs` runs it; a test holds the pages against what it would write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from pydantic_core import PydanticUndefined

from imagefarm.cli import app
from imagefarm.settings import ENV_PREFIX, Settings

DOCS = Path(__file__).resolve().parent.parent / "docs"

SETTINGS_HEAD = """# Settings

Made from `imagefarm/settings.py` by `make docs`.

Each value comes from `imagefarm.toml` in the folder one starts in, then from the environment (`IMAGEFARM_` and the name in
capitals; lists as JSON), then from flags; the later wins. `imagefarm settings` shows each value and where it came from. Times
are in seconds, sizes in bytes.

| setting | default | meaning |
|---|---|---|
"""
CLI_HEAD = """# Command line

Made from the commands by `make docs`. Results go to standard output, everything else to standard error; `--json` writes JSON
for programs.

| exit code | |
|---|---|
| 0 | done |
| 1 | a job failed or was cancelled, or the audit is broken |
| 2 | the request or the command line is wrong |
| 3 | the farm cannot start or run as it is set up |
| 4, 5, 6, 7 | the data folder is in use; the port is in use; no redis-server; the database does not fit this version |
| 8, 9, 10, 11 | no farm answers; it is busy; the key is refused; there is no such thing |
| 12 | waited too long; the job goes on |
| 130 | interrupted; what was submitted goes on |

Commands that talk to a farm look for it at `--url`, then `IMAGEFARM_URL`, then where the farm of the data folder here says it
is, then at `http://127.0.0.1:8000`.
`imagefarm --install-completion` adds completion to your shell.
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


def cli_page() -> str:
    """docs/cli.md."""
    return CLI_HEAD + "".join(_sections(typer.main.get_command(app), "imagefarm"))


def _sections(command: Any, path: str) -> list[str]:
    # Typer carries its own copy of Click, so that its classes cannot be named here
    inner = getattr(command, "commands", None)
    sections = []
    if path != "imagefarm":
        with command.context_class(command, info_name=path, terminal_width=100, max_content_width=100) as context:
            sections.append(f"\n## {path}\n\n```\n{command.get_help(context).rstrip()}\n```\n")
    for name, further in (inner or {}).items():
        sections += _sections(further, f"{path} {name}")
    return sections


PAGES = {"settings.md": settings_page, "cli.md": cli_page}


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
