"""Rows of a CSV table: detects the separator in the first record, reads the header, and cleans the cells."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from imagefarm.errors import FieldError
from imagefarm.text import remove_invisible, strip_invisible
from scheduler.batches.table.columns import IDENTITY_COLUMNS, KNOWN_COLUMNS, MAX_COLUMN_NAME, MAX_COLUMNS, column_name, plain_name
from scheduler.batches.table.rows import MAX_CELL_CHARS, Row, Table, check_number
from scheduler.batches.table.table_text import MAX_LINE_CHARS, TableText, read_text, refuse

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
WIDE_DELIMITERS = "，；、｜¦"
"""Characters of other scripts that look like separators but do not separate cells."""
NEUTRALISED = re.compile(r"^'(?=[=+\-@\t\r])")
"""The mark that keeps a spreadsheet from running a cell as a formula. Exports add it; reading removes it."""
MAX_SHOWN = 40


def read_csv(
    stream: BinaryIO,
    *,
    max_rows: int,
    charset: str | None = None,
    delimiter: str | None = None,
    fallback: tuple[str | None, str | None] = (None, None),
) -> Table:
    """Read a CSV table with a header. Empty cells are left out; empty lines are skipped but counted.

    `delimiter` None: the only known separator in the header outside quotes. `fallback` is the charset and the separator of a
    previous table, used where this table does not specify its own. Raises InvalidRequest naming line and remedy.
    """
    if delimiter is not None and delimiter not in DELIMITERS:
        refuse("delimiter", f"{delimiter[:10]!r} is not known", "use one of " + ", ".join(DELIMITERS.values()))
    text = read_text(stream, charset, fallback=fallback[0])
    begin = next(text.lines, "")
    if begin.lower().startswith("sep=") and len(begin.rstrip("\r\n")) == 5:  # a line that Excel writes and reads
        delimiter = delimiter or (begin[4] if begin[4] in DELIMITERS else None)
        begin = next(text.lines, "")
    _check_is_csv(begin)
    record, bare = _first_record(begin, text)
    delimiter = delimiter or (fallback[1] if fallback[1] and fallback[1] in bare else _delimiter(record, bare))
    reader = csv.reader(_chain(record, text.lines), delimiter=delimiter, strict=True)
    keys = _header(_next_record(reader, 0) or [])
    columns = tuple(key for key in keys if key is not None)
    table = Table(iter(()), columns, charset=text.charset, delimiter=delimiter)
    table.rows = _csv_rows(reader, keys, max_rows, table.warnings)
    return table


def _chain(first: list[str], rest: Iterator[str]) -> Iterator[str]:
    yield from first
    yield from rest


def _first_record(begin: str, text: TableText) -> tuple[list[str], str]:
    """The lines of the first record (a quoted cell may span several), and its text outside quotes."""
    lines: list[str] = []
    bare: list[str] = []
    size, is_open, line = 0, False, begin
    while line:
        lines.append(line)
        size += len(line)
        is_open = _scan(line, is_open, bare)
        if not is_open or size > MAX_LINE_CHARS:
            break
        line = next(text.lines, "")
    return lines, "".join(bare)


def _scan(line: str, is_open: bool, bare: list[str]) -> bool:
    """Append a line's text outside quotes to `bare`; return whether the line ends inside quotes. They open at a cell's start."""
    before = "" if not bare else bare[-1]
    for character in line:
        if is_open:
            is_open = character != '"'
        elif character == '"' and (before == '"' or before in DELIMITERS or not before):
            is_open = True
        else:
            bare.append(character)
        before = character
    return is_open


def _check_is_csv(begin: str) -> None:
    begin = begin.lstrip()
    if re.match(r'\{\s*("|\Z)|\[\s*([{\[]|\Z)', begin):
        refuse(
            "table",
            f"begins like JSON: {begin[:MAX_SHOWN].strip()!r}",
            "call the file .jsonl, or send it as application/x-ndjson",
        )


def _delimiter(record: list[str], bare: str) -> str:
    found = [mark for mark in DELIMITERS if mark in bare]
    if len(found) > 1 and not any(column_name(part) in KNOWN_COLUMNS for part in bare.split("|")):
        found = [mark for mark in found if mark != "|"]
    if len(found) > 1:
        names = " and ".join(DELIMITERS[mark] for mark in found)
        counts = [len(next(csv.reader(record, delimiter=mark))) for mark in found]
        reads = " or ".join(f"delimiter={mark} ({count} columns)" for mark, count in zip(found, counts, strict=True))
        refuse("delimiter", f"the header has {names}, so the separator of the cells is not clear", f"send {reads}")
    if not found and (wide := next((mark for mark in WIDE_DELIMITERS if mark in bare), None)):
        detail = f"the header has {wide!r}, which does not separate cells"
        refuse("delimiter", detail, "separate the cells by a comma, a semicolon or a tab, or put the name in quotes")
    return found[0] if found else ","


def _header(names: list[str]) -> list[str | None]:
    """The key of each column from the left; None for a column without a name."""
    while names and not plain_name(names[-1]):
        names = names[:-1]  # a sheet's unused columns
    if not names:
        refuse("table", "is empty", "send a header line and a line for each row")
    if len(names) > MAX_COLUMNS:
        refuse("table", f"has {len(names)} columns", f"send at most {MAX_COLUMNS}")
    seen: dict[str, str] = {}
    keys: list[str | None] = []
    for position, name in enumerate(names, 1):
        if len(name) > MAX_COLUMN_NAME:
            refuse("table", f"the name of column {position} is longer than {MAX_COLUMN_NAME} characters", "shorten it")
        key = column_name(name)
        if not key.strip("_"):
            keys.append(None)
            continue
        if key in seen:
            refuse("table", f"two columns are called {key!r} ({seen[key]!r} and {name!r})", "give each its own name")
        seen[key] = name
        keys.append(key)
    if not seen:
        refuse("table", "column 1 has no name", "name the columns in the header, the table's first line")
    return keys


def _next_record(reader: Any, row: int) -> list[str] | None:
    try:
        record: list[str] | None = next(reader, None)
    except csv.Error as error:
        # after a stray quote the start of the next row is unknown
        refuse(
            "table",
            f"cannot be read as CSV near line {reader.line_num}: {error}",
            'close every quote; write a quote inside a quoted cell twice ("")',
            row or None,
        )
    return record


def _csv_rows(reader: Any, keys: list[str | None], max_rows: int, warnings: list[FieldError]) -> Iterator[Row]:
    number, is_noted = 0, False
    while (record := _next_record(reader, number + 1)) is not None:
        number += 1
        cells = [strip_invisible(cell) for cell in record]
        while cells and not cells[-1]:
            cells.pop()
        if not cells:
            continue
        check_number(number, max_rows)
        if len(record) < len(keys) and not is_noted:
            is_noted = True
            detail = f"has {len(record)} cells where the header has {len(keys)}; the missing cells count as empty"
            remedy = "put cells that hold a line break in quotes, if a row was broken here; rows like it are not listed"
            warnings.append(FieldError(field="table", detail=detail, remedy=remedy, row=number))
        yield _row(number, cells, keys, reader.line_num)


def _row(number: int, cells: list[str], keys: list[str | None], line: int) -> Row:
    row = Row(number, {})
    if len(cells) > len(keys):
        row.add_error(
            "table",
            f"has {len(cells)} cells where the header has {len(keys)} (line {line})",
            f"put cells that contain the separator in quotes, or name the column of {cells[-1][:MAX_SHOWN]!r}",
        )
    for position, (column, cell) in enumerate(zip(keys, cells, strict=False), 1):
        if not cell:
            continue
        if column is None:
            detail = f"column {position} has no name, and this row has {cell[:MAX_SHOWN]!r} in it"
            row.add_error("table", detail, "name the column in the header, the table's first line, or empty the cell")
        elif len(cell) > MAX_CELL_CHARS:
            row.add_error(column, f"has {len(cell)} characters", f"shorten it to {MAX_CELL_CHARS} at most")
        else:
            clean = remove_invisible(cell) if column in IDENTITY_COLUMNS else cell
            if clean := NEUTRALISED.sub("", clean) if clean[:1] == "'" else clean:
                row.cells[column] = clean
    return row
