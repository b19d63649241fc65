"""A table as its readers return it: a stream of rows with their errors, and warnings about the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from imagefarm.errors import FieldError
from scheduler.batches.table.table_text import refuse

MAX_CELL_CHARS = 64 * 1024


@dataclass(slots=True)
class Row:
    """One row: its 1-based number in the table, the cells that are not empty, and its errors."""

    number: int
    cells: dict[str, Any]
    errors: list[FieldError] = field(default_factory=list)

    def add_error(self, column: str, detail: str, remedy: str) -> None:
        """Add an error to this row."""
        self.errors.append(FieldError(field=column, detail=detail, remedy=remedy, row=self.number))


@dataclass(slots=True)
class Table:
    """The stream of rows, and the columns if the format names them in advance (CSV does, JSON does not)."""

    rows: Iterator[Row]
    columns: tuple[str, ...] | None = None
    warnings: list[FieldError] = field(default_factory=list)
    """Warnings about likely mistakes; grows while the rows are read."""
    charset: str = "utf-8"
    """The charset that the table was read with."""
    delimiter: str = ""
    """The separator of a CSV table."""


def check_number(number: int, max_rows: int) -> None:
    """Raise InvalidRequest for a row number above `max_rows`."""
    if number > max_rows:
        refuse("rows", f"the table has more than {max_rows} rows, the limit max_batch_rows", "send it in several batches", number)
