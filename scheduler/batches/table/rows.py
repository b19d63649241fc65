"""A table as its readers hand it on: rows as a stream, each with what is wrong with it, and hints about the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from imagefarm.errors import FieldError
from scheduler.batches.table.table_text import refuse

MAX_CELL_CHARS = 64 * 1024


@dataclass(slots=True)
class Row:
    """One row: its 1-based number in the table, the cells that are not empty, and what is wrong with it."""

    number: int
    cells: dict[str, Any]
    errors: list[FieldError] = field(default_factory=list)

    def add_error(self, column: str, detail: str, remedy: str) -> None:
        """Note an error of this row."""
        self.errors.append(FieldError(field=column, detail=detail, remedy=remedy, row=self.number))


@dataclass(slots=True)
class Table:
    """The rows to come, and the columns if the format names them ahead (CSV does, JSON does not)."""

    rows: Iterator[Row]
    columns: tuple[str, ...] | None = None
    warnings: list[FieldError] = field(default_factory=list)
    """What may not be meant as it is read; grows while the rows are read."""
    charset: str = "utf-8"
    """By which it was read."""
    delimiter: str = ""
    """Of CSV: what separates its cells."""


def check_number(number: int, max_rows: int) -> None:
    """Raise InvalidRequest for a row beyond the limit."""
    if number > max_rows:
        refuse("rows", f"the table has more than {max_rows} rows, the limit max_batch_rows", "send it in several batches", number)
