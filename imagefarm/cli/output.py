"""The command line's output: results on standard output (text or JSON), everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from imagefarm.errors import FarmError, InvalidRequest

GAP = "  "
"""Spaces between two columns."""
NARROWEST = 20
"""Smallest width of a wrapped column, in characters."""
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


def print_json(value: Any) -> None:
    """Write a value as JSON for programs: UTF-8, indented."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows under their columns. Cells are shown as plain text; Rich markup in them is not interpreted.

    No cell is cut off. The widest column is wrapped if the table then fits; otherwise, and in a pipe, lines are as long as
    necessary.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    widest = widths.index(max(widths))
    room = Console().width - sum(widths) + widths[widest] - len(GAP) * len(columns)
    fits = sys.stdout.isatty() and room >= NARROWEST
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=not (fits and place == widest))
    for row in cells:
        table.add_row(*row)
    Console(markup=False, emoji=False, highlight=False, width=None if fits else 10_000, soft_wrap=not fits).print(table)


def note(line: str) -> None:
    """Write one line to standard error."""
    print(line, file=sys.stderr, flush=True)


def print_error(error: FarmError) -> None:
    """One line for the error, and one for each wrong field."""
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
