"""A submitted table, opened once its options are known: an update reads it as the earlier table was read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from scheduler.batches.table.column_map import rename
from scheduler.batches.table.csv_rows import read_csv
from scheduler.batches.table.json_rows import read_json_lines, read_json_rows
from scheduler.batches.table.options import BatchOptions
from scheduler.batches.table.rows import Table

JSON_NAMES = (".jsonl", ".ndjson", ".json")


class TableSource(Protocol):
    """A table that can be read once."""

    def open(self, options: BatchOptions, given: BatchOptions) -> Table:
        """Open the table with `options`. `given` are the caller's own options, without those of an earlier batch.

        Stores the detected charset in `options`. Raises InvalidRequest.
        """


@dataclass(frozen=True, slots=True)
class TableFile:
    """A CSV or JSON Lines file."""

    stream: BinaryIO
    max_rows: int
    is_json: bool = False
    charset: str | None = None
    """The charset in the request's header."""

    def open(self, options: BatchOptions, given: BatchOptions) -> Table:
        charset = given.charset or self.charset
        if self.is_json:
            table = read_json_lines(self.stream, max_rows=self.max_rows, charset=charset)
        else:
            earlier = (options.charset, options.delimiter)
            table = read_csv(self.stream, max_rows=self.max_rows, charset=charset, delimiter=given.delimiter, fallback=earlier)
        options.charset = None if table.charset == "utf-8" else table.charset
        return rename(table, options.column_map)


@dataclass(frozen=True, slots=True)
class TableRows:
    """The rows of a JSON body."""

    rows: list[Any]
    max_rows: int

    def open(self, options: BatchOptions, given: BatchOptions) -> Table:
        return rename(read_json_rows(self.rows, max_rows=self.max_rows), options.column_map)


def is_json_name(file_name: str) -> bool:
    """Whether a file with this name is read as JSON."""
    return file_name.lower().endswith(JSON_NAMES)
