"""A preview of a new batch: the columns of its table and the prompts of the first rows.

It reads only the beginning of the table and stores nothing. It fetches no images and checks no limits; the quote does both.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

from imagefarm.errors import FieldError, InvalidRequest
from scheduler.batches.table.column_map import rename
from scheduler.batches.table.columns import near_misses
from scheduler.batches.table.options import BatchOptions
from scheduler.batches.table.prompt_hints import prompt_hints
from scheduler.batches.table.rows import Row, Table
from scheduler.batches.table.table_reader import TableFile
from scheduler.batches.table.template import PromptTemplate, RowTemplateError
from scheduler.batches.table.variants import combinations

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


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table and the meaning that the form assigns to it (empty: its own name)."""

    name: str
    taken_for: str


@dataclass(frozen=True, slots=True)
class Expanded:
    """The prompt of one row, or the reason why it has none."""

    row: int
    prompt: str
    error: str


@dataclass(frozen=True, slots=True)
class Preview:
    """The columns and the first prompts. `error` is the error of the whole table or template."""

    columns: tuple[Column, ...] = ()
    prompts: tuple[Expanded, ...] = ()
    error: str = ""
    warnings: tuple[FieldError, ...] = ()
    """Warnings: parts of the table that were probably meant otherwise."""


def preview(head: bytes, options: BatchOptions, *, given: BatchOptions, is_json: bool, mapping: Mapping[str, str]) -> Preview:
    """Look at the beginning of a table and expand its first rows.

    `options` are those of the batch, with what an earlier one adds; `given` is what the form says.
    """
    if not head.strip():
        return Preview()
    columns: tuple[Column, ...] = ()
    try:
        plain = options.model_copy(update={"column_map": {}})
        table = TableFile(io.BytesIO(head), LOOKED_AT, is_json).open(plain, given)
        rows = [row for row, _ in zip(table.rows, range(SHOWN), strict=False)]
        names = table.columns or tuple(dict.fromkeys(name for row in rows for name in row.cells))
        mapping = {**options.column_map, **mapping}
        columns = tuple(Column(name, mapping.get(name, "")) for name in names)
        mapped = rename(Table(iter(rows), names), mapping)
        variant = combinations(options.variants)[0]
        known = (*(mapped.columns or ()), *variant)
        made = None if not options.template.strip() else PromptTemplate(options.template)
        if made is not None:
            made.check_names(known)
        prompts = tuple(_expand(row, made, variant) for row in mapped.rows)
        hints = [*near_misses(mapped.columns or ()), *prompt_hints("template", options.template, known)]
        return Preview(columns, prompts, "", tuple(hints))
    except InvalidRequest as error:
        return Preview(columns, (), _in_words(error.errors[0]))


def _in_words(error: FieldError) -> str:
    return f"{error.field}: {error.detail} – {error.remedy}"


def _expand(row: Row, template: PromptTemplate | None, variant: Mapping[str, object]) -> Expanded:
    if row.errors:
        first = row.errors[0]
        return Expanded(row.number, "", f"{first.field}: {first.detail}")
    try:
        prompt = str(row.cells.get("prompt", "")) if template is None else template.render({**row.cells, **variant})
    except RowTemplateError as error:
        return Expanded(row.number, "", str(error))
    return Expanded(row.number, prompt, "" if prompt else "has no prompt")
