"""A new batch while it is being written: the columns of the table's beginning, and the first prompts that the template makes.

Only the beginning is looked at, and nothing of it is kept: neither pictures are fetched nor limits asked. The quote does that.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from imagefarm.errors import FieldError, InvalidRequest
from scheduler.batches.table.table_reader import MAX_COLUMN_NAME, Row, Table, column_name, read_csv, read_json_lines
from scheduler.batches.table.template import PromptTemplate, RowTemplateError

SHOWN = 3
LOOKED_AT = 50
MEANINGS = (
    "sku",
    "prompt",
    "negative_prompt",
    "seed",
    "count",
    "width",
    "height",
    "steps",
    "guidance",
    "model",
    "image",
    "mask",
    "subject",
)
"""What a column of another name may be taken for."""
LEFT_OUT = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table, and what it is taken for (empty: its own name)."""

    name: str
    taken_for: str


@dataclass(frozen=True, slots=True)
class Expanded:
    """What becomes of a row: its prompt, or why there is none."""

    row: int
    prompt: str
    error: str


@dataclass(frozen=True, slots=True)
class Preview:
    """The columns and the first prompts. `error` is what is wrong with the table or the template as a whole."""

    columns: tuple[Column, ...] = ()
    prompts: tuple[Expanded, ...] = ()
    error: str = ""


def preview(head: str, template: str, *, json_lines: bool, mapping: Mapping[str, str]) -> Preview:
    """Look at the beginning of a table and expand its first rows."""
    if not head.strip():
        return Preview()
    columns: tuple[Column, ...] = ()
    try:
        read = read_json_lines if json_lines else read_csv
        table = read(io.BytesIO(head.encode("utf-8", "replace")), max_rows=LOOKED_AT)
        rows = [row for row, _ in zip(table.rows, range(SHOWN), strict=False)]
        names = table.columns or tuple(dict.fromkeys(name for row in rows for name in row.cells))
        columns = tuple(Column(name, mapping.get(name, "")) for name in names)
        mapped = rename(Table(iter(rows), names), mapping)
        made = None if not template.strip() else PromptTemplate(template)
        if made is not None and mapped.columns is not None:
            made.check_names(mapped.columns)
        return Preview(columns, tuple(_expand(row, made) for row in mapped.rows))
    except InvalidRequest as error:
        first = error.errors[0]
        return Preview(columns, (), f"{first.field}: {first.detail} – {first.remedy}")


def rename(table: Table, mapping: Mapping[str, str]) -> Table:
    """The table with its columns taken for what `mapping` says. Raises InvalidRequest if two are taken for the same."""
    wanted = {
        name: "" if to == LEFT_OUT else column_name(to) for name, to in mapping.items() if to and len(to) <= MAX_COLUMN_NAME
    }
    if not wanted:
        return table
    columns = None
    if table.columns is not None:
        columns = tuple(name for name in (wanted.get(name, name) for name in table.columns) if name)
        if twice := next((name for name in columns if columns.count(name) > 1), None):
            detail = f"two columns are taken for {twice!r}"
            raise InvalidRequest([FieldError(field="columns", detail=detail, remedy="take one of them for something else")])

    def renamed() -> Iterator[Row]:
        for row in table.rows:
            cells = {wanted.get(name, name): value for name, value in row.cells.items()}
            cells.pop("", None)
            yield replace(row, cells=cells)

    return Table(renamed(), columns)


def _expand(row: Row, template: PromptTemplate | None) -> Expanded:
    if row.errors:
        first = row.errors[0]
        return Expanded(row.number, "", f"{first.field}: {first.detail}")
    try:
        prompt = str(row.cells.get("prompt", "")) if template is None else template.render(row.cells)
    except RowTemplateError as error:
        return Expanded(row.number, "", str(error))
    return Expanded(row.number, prompt, "" if prompt else "has no prompt")
