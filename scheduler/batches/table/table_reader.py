"""A table's rows, read as a stream: CSV, JSON Lines (also OpenAI-Batch lines) or a JSON list.

Whatever is wrong with one row travels with that row; what makes the rest unreadable raises InvalidRequest. Memory is
bounded by the longest line, never by the table.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.recipe import JobRequest
from imagefarm.text import check_text

MAX_CELL_CHARS = 64 * 1024
MAX_LINE_CHARS = 1024 * 1024
MAX_COLUMNS = 200
CHUNK_BYTES = 256 * 1024
MAX_COLUMN_NAME = 64
CHARSETS = ("utf-8", "utf-16", "gb18030", "gbk", "big5", "shift_jis", "euc-kr", "windows-1252", "iso-8859-1")
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}

RECIPE_COLUMNS = frozenset(JobRequest.model_fields) - {"prompt", "labels", "custom_id", "priority", "expires_in", "preview"}
"""Columns of these names override the defaults for their row."""
KNOWN_COLUMNS = RECIPE_COLUMNS | {"prompt", "sku", "custom_id"}
"""Column names that mean something of their own, in whatever case a spreadsheet spells them."""
NEUTRALISED = re.compile(r"^'(?=[=+\-@\t\r])")
"""The mark that keeps a spreadsheet from running a cell: exports set it, so it is taken back here."""
OPENAI_LINE = frozenset({"custom_id", "method", "url", "body"})


@dataclass(slots=True)
class Row:
    """One row: its 1-based number in the table, the cells that are not empty, and what is wrong with it."""

    number: int
    cells: dict[str, Any]
    errors: list[FieldError] = field(default_factory=list)

    def add_error(self, column: str, detail: str, remedy: str) -> None:
        """Note an error of this row."""
        self.errors.append(FieldError(field=column, detail=detail, remedy=remedy, row=self.number))


@dataclass(frozen=True, slots=True)
class Table:
    """The rows to come, and the columns if the format names them ahead (CSV does, JSON does not)."""

    rows: Iterator[Row]
    columns: tuple[str, ...] | None = None


def refuse(column: str, detail: str, remedy: str, row: int | None = None) -> NoReturn:
    """Raise InvalidRequest for something that spoils the whole table."""
    raise InvalidRequest([FieldError(field=column, detail=detail, remedy=remedy, row=row)])


def column_name(name: str) -> str:
    """The name under which a template finds a column: known ones in small letters, others with `_` for odd characters."""
    name = name.strip()
    if name.casefold() == "image":
        return "init_image"
    if name.casefold() in KNOWN_COLUMNS:
        return name.casefold()
    return re.sub(r"^(?=\d)|\W", "_", name)


def read_csv(stream: BinaryIO, *, max_rows: int, charset: str = "utf-8", delimiter: str | None = None) -> Table:
    """Read a CSV table with a header. Empty cells are absent, empty lines are passed over (and counted).

    `delimiter` None: comma, or semicolon or tab when the header has only that. Raises InvalidRequest naming line and remedy.
    """
    if charset.lower() not in CHARSETS:
        refuse("charset", f"{charset[:40]!r} is not known", "send UTF-8, or one of " + ", ".join(CHARSETS))
    codec = "utf-8-sig" if charset.lower() == "utf-8" else charset
    lines = _lines(stream, codec)
    header = next(lines, "")
    if header.lower().startswith("sep=") and len(header.rstrip("\r\n")) == 5:  # a line that Excel writes and reads
        delimiter = delimiter or header[4]
        header = next(lines, "")
    if delimiter is None:
        delimiter = _delimiter(header)
    elif delimiter not in DELIMITERS:
        refuse("delimiter", f"{delimiter[:10]!r} is not known", "use a comma, a semicolon or a tab")
    reader = csv.reader(_chain(header, lines), delimiter=delimiter, strict=True)
    columns = _columns(_next_record(reader, 0) or [])
    return Table(_csv_rows(reader, columns, max_rows), columns)


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


class _Borrowed(io.RawIOBase):
    """The caller's stream: closing this one leaves it open."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _lines(stream: BinaryIO, codec: str) -> Iterator[str]:
    text = io.TextIOWrapper(io.BufferedReader(_Borrowed(stream), CHUNK_BYTES), encoding=codec, errors="strict", newline="")
    number = 0
    try:
        while True:
            number += 1
            line = text.readline(MAX_LINE_CHARS + 1)
            if not line:
                return
            if len(line) > MAX_LINE_CHARS:
                refuse("table", f"line {number} is longer than {MAX_LINE_CHARS} characters", "shorten its cells")
            yield line
    except UnicodeError:
        name = "utf-8" if codec == "utf-8-sig" else codec
        refuse(
            "table",
            f"the text at or after line {number} is not {name}",
            "save the table as `CSV UTF-8`, or say what it is: charset=gb18030",
        )


def _delimiter(header: str) -> str:
    bare = re.sub(r'"[^"]*"', "", header)
    found = [mark for mark in DELIMITERS if mark in bare]
    if len(found) > 1:
        names = " and ".join(DELIMITERS[mark] for mark in found)
        refuse("delimiter", f"the header has {names}, so what separates the cells is not clear", "send delimiter=, (or ; or tab)")
    return found[0] if found else ","


def _columns(header: list[str]) -> tuple[str, ...]:
    if not header or header == [""]:
        refuse("table", "is empty", "send a header line and a line for each row")
    if len(header) > MAX_COLUMNS:
        refuse("table", f"has {len(header)} columns", f"send at most {MAX_COLUMNS}")
    seen: dict[str, str] = {}
    for position, name in enumerate(header, 1):
        key = column_name(name)
        if not key.strip("_"):
            refuse("table", f"column {position} has no name", "name every column in the header, or take the column out")
        if len(name) > MAX_COLUMN_NAME:
            refuse("table", f"the name of column {position} is longer than {MAX_COLUMN_NAME} characters", "shorten it")
        if key in seen:
            refuse("table", f"two columns are called {key!r} ({seen[key]!r} and {name!r})", "give each its own name")
        seen[key] = name
    return tuple(seen)


def _next_record(reader: Any, row: int) -> list[str] | None:
    try:
        record: list[str] | None = next(reader, None)
    except csv.Error as error:
        # after a stray quote nobody knows where the next row begins
        refuse(
            "table",
            f"cannot be read as CSV near line {reader.line_num}: {error}",
            'close every quote; write a quote inside a quoted cell twice ("")',
            row or None,
        )
    return record


def _csv_rows(reader: Any, columns: tuple[str, ...], max_rows: int) -> Iterator[Row]:
    number, width = 0, len(columns)
    while (record := _next_record(reader, number + 1)) is not None:
        number += 1
        if not any(cell.strip() for cell in record):
            continue
        _check_number(number, max_rows)
        row = Row(number, {})
        while len(record) > width and not record[-1]:
            record.pop()
        if len(record) != width:
            row.add_error(
                "table",
                f"has {len(record)} cells where the header has {width} (line {reader.line_num})",
                "put cells that contain the separator in quotes",
            )
        for column, cell in zip(columns, record, strict=False):
            if len(cell) > MAX_CELL_CHARS:
                row.add_error(column, f"has {len(cell)} characters", f"shorten it to {MAX_CELL_CHARS} at most")
            elif cell := cell.strip():
                row.cells[column] = NEUTRALISED.sub("", cell)
        yield row


def read_json_lines(stream: BinaryIO, *, max_rows: int) -> Table:
    """Read one JSON object a line. Lines of the OpenAI Batch form are taken by their `body`."""
    return Table(_json_line_rows(stream, max_rows))


def _json_line_rows(stream: BinaryIO, max_rows: int) -> Iterator[Row]:
    number = 0
    for line in _lines(stream, "utf-8-sig"):
        number += 1
        if not line.strip():
            continue
        _check_number(number, max_rows)
        try:
            value = json.loads(line, parse_constant=_no_constant, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            row = Row(number, {})
            row.add_error(
                "table", f"is not a JSON object: {str(error)[:200] or 'nested too deep'}", "send one JSON object a line"
            )
            yield row
        else:
            yield _json_row(number, value)


def read_json_rows(rows: Iterable[Any], *, max_rows: int) -> Table:
    """Take the rows of a JSON body that has been read already."""

    def numbered() -> Iterator[Row]:
        for number, value in enumerate(rows, 1):
            _check_number(number, max_rows)
            yield _json_row(number, value)

    return Table(numbered())


def _json_row(number: int, value: Any) -> Row:
    row = Row(number, {})
    if not isinstance(value, dict):
        row.add_error("table", f"is {type(value).__name__}, not an object", "send one JSON object a row")
        return row
    if "body" in value and set(value) <= OPENAI_LINE:
        value = _from_openai(row, value)
    if len(value) > MAX_COLUMNS:
        row.add_error("table", f"has {len(value)} fields", f"send at most {MAX_COLUMNS}")
        return row
    for name, cell in value.items():
        key = column_name(name)
        if not key.strip("_") or len(name) > MAX_COLUMN_NAME:
            row.add_error("table", f"has a field named {name[:40]!r}", f"use names of 1 to {MAX_COLUMN_NAME} characters")
        elif key in row.cells:
            row.add_error(key, "is there twice", "give each field its own name")
        elif isinstance(cell, str):
            _json_text(row, key, cell)
        elif isinstance(cell, dict | list) and key not in RECIPE_COLUMNS:
            row.add_error(key, "is an object or a list", "send a text or a number")
        elif cell is not None:
            row.cells[key] = cell
    return row


def _json_text(row: Row, key: str, cell: str) -> None:
    if len(cell) > MAX_CELL_CHARS:
        row.add_error(key, f"has {len(cell)} characters", f"shorten it to {MAX_CELL_CHARS} at most")
        return
    try:
        check_text(cell)
    except ValueError as error:
        row.add_error(key, str(error), "send plain text")
        return
    if cell := cell.strip():
        row.cells[key] = cell


def _from_openai(row: Row, line: dict[str, Any]) -> dict[str, Any]:
    """The row of `{"custom_id", "method", "url", "body": {"prompt", "model", "size", "n"}}`."""
    body = line["body"]
    if not isinstance(body, dict) or line.get("url", "/v1/images/generations") != "/v1/images/generations":
        row.add_error("url", "is not /v1/images/generations", "send lines for that endpoint, with an object as body")
        return {}
    cells = {name: body[name] for name in body if name not in {"size", "n", "response_format", "user", "quality", "style"}}
    if "n" in body:
        cells["count"] = body["n"]
    if isinstance(size := body.get("size"), str) and size != "auto":
        if match := re.fullmatch(r"(\d{1,5})x(\d{1,5})", size, re.ASCII):
            cells |= {"width": int(match[1]), "height": int(match[2])}
        else:
            row.add_error("size", f"{size[:20]!r} is not a size", "write it like 512x512")
    if line.get("custom_id") is not None:
        cells["custom_id"] = line["custom_id"]
    return cells


def _check_number(number: int, max_rows: int) -> None:
    if number > max_rows:
        refuse("rows", f"the table has more than {max_rows} rows, the limit max_batch_rows", "send it in several batches", number)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a field is there twice")
    return result
