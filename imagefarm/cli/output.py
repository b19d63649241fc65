"""What the command line writes: results to standard output (text or JSON), everything else to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from imagefarm.errors import FarmError, InvalidRequest

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


def print_json(value: Any) -> None:
    """Write a value as JSON for programs: UTF-8, indented."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows under their columns; what comes from outside is shown as text, never read as markup."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    # a pipe has no width: there nothing is cut off
    Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 10_000, soft_wrap=True).print(table)


def note(line: str) -> None:
    """Tell the person at the terminal one line."""
    print(line, file=sys.stderr, flush=True)


def print_error(error: FarmError) -> None:
    """One line for the error, and one for each field that is to be mended."""
    note(f"imagefarm: {_one_line(error.detail)}")
    fields = error.errors if isinstance(error, InvalidRequest) else getattr(error, "fields", [])
    for field in fields:
        where = f"row {field.row}, {field.field}" if field.row is not None else field.field
        note(_one_line(f"  {where}: {field.detail}" + (f"; {field.remedy}" if field.remedy else "")))


def _cell(value: object) -> str:
    return "" if value is None else _one_line(str(value))


def _one_line(text: str) -> str:
    """The text without control characters: a prompt must not move the reader's cursor."""
    return "".join(character if character.isprintable() else " " for character in text)
