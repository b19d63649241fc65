"""Maps a table's own column names to known columns, as its submitter specified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from imagefarm.errors import FieldError, InvalidRequest
from scheduler.batches.table.columns import column_name
from scheduler.batches.table.rows import Row, Table

LEFT_OUT = "-"
"""A column that is mapped to this is not read."""


def clean_map(column_map: Mapping[str, str]) -> dict[str, str]:
    """The map with both sides as `column_name` writes them, without empty targets."""
    return {column_name(name): to if to == LEFT_OUT else column_name(to) for name, to in column_map.items() if to}


def rename(table: Table, column_map: Mapping[str, str]) -> Table:
    """The table with its columns renamed by `column_map`. Raises InvalidRequest if two columns get the same name."""
    wanted = {name: "" if to == LEFT_OUT else to for name, to in clean_map(column_map).items()}
    if not wanted:
        return table
    columns = None
    if table.columns is not None:
        columns = tuple(name for name in (wanted.get(name, name) for name in table.columns) if name)
        if twice := next((name for name in columns if columns.count(name) > 1), None):
            detail = f"two columns are mapped to {twice!r}"
            raise InvalidRequest([FieldError(field="columns", detail=detail, remedy="map one of them to another column")])
    return replace(table, rows=_renamed(table.rows, wanted), columns=columns)


def _renamed(rows: Iterator[Row], wanted: Mapping[str, str]) -> Iterator[Row]:
    for row in rows:
        cells = {wanted.get(name, name): value for name, value in row.cells.items()}
        cells.pop("", None)
        yield replace(row, cells=cells)
