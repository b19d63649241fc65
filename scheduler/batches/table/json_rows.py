"""Rows of a JSON table: one object per line (also OpenAI Batch lines), a list of objects, or the rows of a JSON body."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NoReturn

from imagefarm.text import check_text, remove_invisible, strip_invisible
from scheduler.batches.table.columns import (
    IDENTITY_COLUMNS,
    MAX_COLUMN_NAME,
    MAX_COLUMNS,
    RECIPE_COLUMNS,
    column_name,
)
from scheduler.batches.table.rows import MAX_CELL_CHARS, Row, Table, check_number
from scheduler.batches.table.table_text import MAX_LINE_CHARS, read_text, refuse

OPENAI_LINE = frozenset({"custom_id", "method", "url", "body"})
EXACT_BELOW = 2**53
"""From this number on, a float does not represent every whole number exactly."""
MAX_SHOWN = 40


def read_json_lines(stream: BinaryIO, *, max_rows: int, charset: str | None = None) -> Table:
    """Read one JSON object per line, or one list of objects. OpenAI Batch lines are read by their `body`."""
    lines = read_text(stream, charset).lines
    blank, first = 0, ""
    for first in lines:
        if first.strip():
            break
        blank += 1
    begin = first.lstrip()
    if begin.startswith("["):
        return Table(_list_rows(_chain(begin, lines), max_rows))
    if begin.rstrip() == "{" or (begin.startswith("{") and not begin.rstrip().endswith("}") and _is_unfinished(begin)):
        refuse("table", "has a JSON object over several lines", "send one object a line, or one list of objects: [{...}, {...}]")
    if begin and not begin.startswith("{") and not _is_json(begin):
        shown = begin[:MAX_SHOWN].strip()
        refuse("table", f"does not begin like JSON Lines: {shown!r}", "send CSV as text/csv, in a file called .csv")
    return Table(_line_rows(_chain(first, lines), max_rows, blank))


def read_json_rows(rows: Iterable[Any], *, max_rows: int) -> Table:
    """Read the rows of a JSON body that has been parsed already."""

    def numbered() -> Iterator[Row]:
        for number, value in enumerate(rows, 1):
            check_number(number, max_rows)
            yield _row(number, value)

    return Table(numbered())


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a field occurs twice")
    return result


DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_once)


def _is_json(text: str) -> bool:
    try:
        DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_unfinished(text: str) -> bool:
    """Whether the text is the beginning of valid JSON."""
    try:
        DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text.rstrip()) - 1
    except (ValueError, RecursionError):
        return False
    return False


def _line_rows(lines: Iterator[str], max_rows: int, number: int) -> Iterator[Row]:
    for line in lines:
        number += 1
        if not line.strip():
            continue
        check_number(number, max_rows)
        try:
            value = DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            row = Row(number, {})
            row.add_error(
                "table", f"is not a JSON object: {str(error)[:200] or 'nested too deep'}", "send one JSON object a line"
            )
            yield row
        else:
            yield _row(number, value)


def _list_rows(pieces: Iterator[str], max_rows: int) -> Iterator[Row]:
    """The elements of a JSON list, read one at a time."""
    text, number = _Text(pieces), 0
    text.skip("[")
    while True:
        if number == 0 and text.peek() == "]":
            break
        number += 1
        check_number(number, max_rows)
        yield _row(number, text.value(number))
        if text.peek() != ",":
            break
        text.skip(",")
    if text.peek() != "]":
        refuse("table", "the JSON list does not end with ]", "send the whole of it", number)
    text.skip("]")
    if text.peek():
        refuse("table", "the text goes on after the JSON list", "send one list, or one object a line", number)


class _Text:
    """JSON text that arrives in pieces. Memory holds one element."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._text = ""
        self._at = 0

    def _more(self) -> bool:
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._text, self._at = self._text[self._at :] + piece, 0
        return True

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def skip(self, mark: str) -> None:
        """Skip `mark`, which `peek` has seen."""
        self.peek()
        self._at += len(mark)

    def value(self, row: int) -> Any:
        """The next element. Raises InvalidRequest naming its row."""
        self.peek()
        enough = 0  # doubles after each failed parse, so that an element over many short lines is not parsed again at each line
        while True:
            size = len(self._text) - self._at
            if size > MAX_LINE_CHARS:
                refuse("table", f"row {row} is longer than {MAX_LINE_CHARS} characters", "shorten its cells", row)
            if size >= enough:
                try:
                    value, end = DECODER.raw_decode(self._text, self._at)
                except json.JSONDecodeError as error:
                    if not self._may_go_on(error) or not self._more():
                        _refuse_element(row, error)
                    enough = 2 * size
                    continue
                except (ValueError, RecursionError) as error:
                    _refuse_element(row, error)
                # a number may continue in the next piece
                if end < len(self._text) or not isinstance(value, int | float) or not self._more():
                    self._at = end
                    return value
                enough = 0
            elif not self._more():
                enough = 0

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Whether the error may have no other cause than that the end of the element has not been read yet."""
        return error.msg.startswith("Unterminated") or error.pos >= len(self._text.rstrip()) - len(r"\ud83d\ude00")


def _refuse_element(row: int, error: Exception) -> NoReturn:
    detail = f"is not a JSON list of objects: {str(error)[:200] or 'nested too deep'}"
    refuse("table", detail, "send [{...}, {...}], or one object a line", row)


def _row(number: int, value: Any) -> Row:
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
            row.add_error(key, "occurs twice", "give each field its own name")
        else:
            _add_cell(row, key, cell)
    return row


def _add_cell(row: Row, key: str, cell: Any) -> None:
    if isinstance(cell, str):
        _add_text(row, key, cell)
    elif isinstance(cell, dict | list) and key not in RECIPE_COLUMNS:
        row.add_error(key, "is an object or a list", "send a text or a number")
    elif isinstance(cell, bool) and key in IDENTITY_COLUMNS:
        row.add_error(key, "is true or false", "send a text or a number")
    elif isinstance(cell, float) and cell.is_integer() and abs(cell) < EXACT_BELOW:
        row.cells[key] = int(cell)  # many programs write 17 as 17.0
    elif cell is not None:
        row.cells[key] = cell


def _add_text(row: Row, key: str, cell: str) -> None:
    if len(cell) > MAX_CELL_CHARS:
        row.add_error(key, f"has {len(cell)} characters", f"shorten it to {MAX_CELL_CHARS} at most")
        return
    try:
        check_text(cell)
    except ValueError as error:
        row.add_error(key, str(error), "send plain text")
        return
    if cell := remove_invisible(cell) if key in IDENTITY_COLUMNS else strip_invisible(cell):
        row.cells[key] = cell


def _from_openai(row: Row, line: dict[str, Any]) -> dict[str, Any]:
    """The row of an OpenAI Batch line: `{"custom_id", "method", "url", "body": {"prompt", "model", "size", "n"}}`."""
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
