"""A table that was sent in, to be opened once its options are known: an update reads it as the earlier table was read."""

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
    """Rows that can be read once."""

    def open(self, options: BatchOptions, given: BatchOptions) -> Table:
        """The table as `options` say. `given` is what its sender said, without what an earlier batch adds.

        Notes in `options` how it was read. Raises InvalidRequest.
        """


@dataclass(frozen=True, slots=True)
class TableFile:
    """CSV or JSON Lines."""

    stream: BinaryIO
    max_rows: int
    is_json: bool = False
    charset: str | None = None
    """What the request's header says."""

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
    """Whether a file of this name is taken for JSON."""
    return file_name.lower().endswith(JSON_NAMES)
