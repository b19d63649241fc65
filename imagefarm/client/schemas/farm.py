"""The farm: models, workers, queue, limits, figures, help with prompts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from imagefarm.client.schemas.base import ResponseModel


class Model(ResponseModel):
    """A model of the farm's catalogue, and whether it is ready."""

    name: str
    title: str = ""
    family: str = ""
    state: str = ""
    reason: str = ""
    license: str = ""


class Worker(ResponseModel):
    """A worker as the farm sees it."""

    id: str
    name: str
    state: str
    device: str = ""
    resident: list[str] = Field(default_factory=list)


class Queue(ResponseModel):
    """The farm's state in a word and why; the lanes with what waits and runs on each."""

    state: str
    reason: str
    queued: int
    running: int
    workers: int
    lanes: list[dict[str, Any]] = Field(default_factory=list)


class Statistics(ResponseModel):
    """What the farm did over an hour, a day or a week: the whole, and piece by piece."""

    period: str
    step_s: int
    whole: dict[str, Any]
    points: list[dict[str, Any]]


class Limits(ResponseModel):
    """What this key and its tenant may ask for, and how much of it is used."""

    tenant: dict[str, Any]
    key: dict[str, Any] | None = None
    requests: dict[str, Any]
    day_ends_at: datetime
    max_batch_rows: int
    max_body_bytes: int
    max_table_bytes: int


class Suggestion(ResponseModel):
    """What a prompt leaves unsaid: the prompt with every addition, and each addition."""

    prompt: str
    enhanced: str
    additions: list[dict[str, str]]
    negative_prompt: str
    kind: str
    language: str


class Kind(ResponseModel):
    """A kind of picture, and the settings that suit it on a model."""

    name: str
    title: dict[str, str]
    steps: int
    guidance: float
    negative_prompt: dict[str, str]
