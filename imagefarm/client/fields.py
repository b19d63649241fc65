"""The keyword arguments of submits and lists, as types. None means the farm's default everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Required, TypedDict

from imagefarm.recipe import Format
from imagefarm.states import JobState, PriorityClass

PriorityName = PriorityClass | Literal["interactive", "bulk"]
StateName = JobState | Literal["held", "queued", "running", "succeeded", "failed", "cancelled"]
PickState = Literal["approved", "rejected", "rerolled", "open"]
PickAction = Literal["approve", "reject", "reroll", "clear"]


class LoraFields(TypedDict, total=False):
    """A LoRA of the catalogue, and its weight from -4 to 4."""

    name: Required[str]
    weight: float


class UpscaleFields(TypedDict, total=False):
    """How the finished image is enlarged: an upscaler of the catalogue, and a scale from 2 to 4."""

    model: str
    scale: int


class PlacementFields(TypedDict, total=False):
    """Where a subject is: its centre as shares of the width and height, and image pixels per photo pixel."""

    x: float
    y: float
    scale: float | None


class SubjectFields(TypedDict, total=False):
    """A product's photo: an asset's id or a URL. `mask` is alpha, white, an asset's id or a URL; `feather` is in pixels."""

    image: Required[str]
    mask: str
    place: PlacementFields
    feather: float
    shadow: float


class JobFields(TypedDict, total=False):
    """The fields of `imagefarm.recipe.JobRequest` besides the prompt. Sizes are in pixels, `expires_in` in seconds."""

    negative_prompt: str | None
    model: str | None
    width: int | None
    height: int | None
    steps: int | None
    guidance: float | None
    sampler: str | None
    seed: int | str | None
    count: int | None
    loras: Sequence[LoraFields] | None
    init_image: str | None
    mask: str | None
    subject: SubjectFields | None
    strength: float | None
    upscale: UpscaleFields | None
    format: Format | None
    quality: int | None
    preview: bool | None
    priority: PriorityName | None
    labels: Mapping[str, str] | None
    custom_id: str | None
    expires_in: float | None


class JobFilters(TypedDict, total=False):
    """Which jobs: all filters that are given must match. A label is `name:value`; `text` is a part of the prompt."""

    state: StateName | Sequence[StateName] | None
    model: str | None
    batch: str | None
    label: str | Sequence[str] | None
    text: str | None
    custom_id: str | None
    worker: str | None
    created_after: datetime | str | None
    created_before: datetime | str | None


class DeliveryTarget(TypedDict):
    """A bucket that the farm's operator allows, and a folder in it."""

    bucket: str
    prefix: str


class BatchFields(TypedDict, total=False):
    """A table's options, and the recipe fields of rows that do not set them; docs/tables.md explains each."""

    name: str | None
    template: str | None
    variants: Mapping[str, Sequence[str]] | None
    subject: Mapping[str, Any] | None
    labels: Sequence[str] | None
    seeds: Literal["fixed", "row", "sku", "random"] | None
    name_pattern: str | None
    on_error: Literal["abort", "skip"] | None
    canary: int | None
    dry_run: bool | None
    reuse: bool | None
    update_of: str | None
    gate: Mapping[str, Any] | str | None
    channels: Sequence[str | Mapping[str, Any]] | None
    deliver: DeliveryTarget | None
    priority: PriorityName | None
    expires_in: float | None
    delimiter: str | None
    charset: str | None
    column_map: Mapping[str, str] | None
    model: str | None
    negative_prompt: str | None
    width: int | None
    height: int | None
    steps: int | None
    guidance: float | None
    sampler: str | None
    seed: int | str | None
    count: int | None
    format: Format | None
    quality: int | None


class FinalsFields(TypedDict, total=False):
    """The fields in which finals differ from their drafts; fields that are left out stay the same."""

    steps: int | None
    upscale: UpscaleFields | None
    name: str | None
    channels: Sequence[str | Mapping[str, Any]] | None
    deliver: DeliveryTarget | None
