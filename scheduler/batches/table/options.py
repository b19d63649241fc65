"""Options of a batch, besides its rows."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from imagefarm.imaging.channels import MAX_CHANNELS, Channel, ChannelName
from imagefarm.states import PriorityClass
from imagefarm.text import Label, NotBool, Text
from scheduler.batches.table.column_map import clean_map
from scheduler.batches.table.columns import MAX_COLUMN_NAME, MAX_COLUMNS, RECIPE_COLUMNS, column_name
from scheduler.batches.table.delivery_target import DeliveryTarget
from scheduler.batches.table.file_names import MAX_PATTERN_CHARS
from scheduler.batches.table.quality_gate import QualityGate
from scheduler.batches.table.seeds import SeedPolicy
from scheduler.batches.table.table_text import CHARSETS
from scheduler.batches.table.template import MAX_TEMPLATE_CHARS
from scheduler.batches.table.variants import Variants

MAX_CANARY = 1000


class OnError(StrEnum):
    ABORT = "abort"
    """If any row has an error, nothing is queued."""
    SKIP = "skip"
    """Rows without errors are queued; the others are counted and listed."""


def _only_recipe_fields(defaults: dict[str, Any]) -> dict[str, Any]:
    for name in defaults:
        if name not in RECIPE_COLUMNS:
            known = ", ".join(sorted(RECIPE_COLUMNS))
            raise ValueError(f"{name!r} is not a recipe field; known: {known}")
    return {name: value for name, value in defaults.items() if value is not None}


class BatchOptions(BaseModel):
    """A batch without its rows."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Text, Field(min_length=1, max_length=255)] = "batch"
    template: Annotated[Text, Field(max_length=MAX_TEMPLATE_CHARS)] = Field(
        "", description="The prompt, with {{ column }} for each row's values; empty: the column `prompt` as it is"
    )
    defaults: Annotated[dict[str, Any], AfterValidator(_only_recipe_fields)] = Field(
        default_factory=dict, description="Recipe fields of rows that do not set them: model, width, steps ..."
    )
    variants: Variants = Field(default_factory=dict, description='Multiplies every row: {"view": ["front", "side"]}')
    seeds: SeedPolicy | None = Field(
        None, description="fixed, row, sku or random; without it: fixed if there is a seed, sku if there is a column sku"
    )
    labels: (
        Annotated[list[Annotated[Label, Field(max_length=MAX_COLUMN_NAME), AfterValidator(column_name)]], Field(max_length=32)]
        | None
    ) = Field(None, description="Columns and variants that become labels of the jobs, besides sku; without it: the variants")
    name_pattern: Annotated[Text, Field(max_length=MAX_PATTERN_CHARS)] | None = Field(
        None, description="File names, like {sku}-{view}-{n}; without it: SKU and variants, else custom id or job id"
    )
    on_error: OnError = OnError.ABORT
    canary: Annotated[int, Field(ge=0, le=MAX_CANARY), NotBool] = Field(
        0, description="Rows to render first; the other rows are held until approved"
    )
    dry_run: bool = Field(False, description="Store nothing; return the report, the number of images and the cost")
    reuse: bool = Field(False, description="Reuse existing images instead of rendering an identical recipe again")
    update_of: Annotated[Text, Field(min_length=1, max_length=255)] | None = Field(
        None,
        description="The id or name of an earlier batch of this table: only changed rows are rendered, and options that are "
        "not set here are taken from it",
    )
    gate: QualityGate | None = Field(
        None, description="Rules on the measured scores of each image: accept it, send it to review, or render it again"
    )
    channels: Annotated[list[ChannelName | Channel], Field(max_length=MAX_CHANNELS)] = Field(
        default_factory=list, description="Formats in which each image is delivered besides the master: names, or definitions"
    )
    column_map: Annotated[
        dict[Annotated[Text, Field(max_length=MAX_COLUMN_NAME)], Annotated[Text, Field(max_length=MAX_COLUMN_NAME)]],
        Field(max_length=MAX_COLUMNS),
        AfterValidator(clean_map),
    ] = Field(default_factory=dict, description='Maps column names to known ones: {"Article": "sku"}; "-" leaves a column out')
    charset: Annotated[Text, Field(max_length=20)] | None = Field(
        None, description=f"Charset of a table that is not UTF-8: {', '.join(CHARSETS[1:])} ..."
    )
    delimiter: Annotated[Text, Field(max_length=10)] | None = Field(
        None, description="Separator of a CSV table: a comma, `;`, a tab or `|`"
    )
    deliver: DeliveryTarget | None = Field(None, description="The bucket and folder for the batch's files when it is done")
    priority: PriorityClass = PriorityClass.BULK
    expires_in: Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False), NotBool] | None = None
