"""The farm: models, workers, queue, limits, figures, help with prompts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from imagefarm.client.schemas.base import ResponseModel


class Model(ResponseModel):
    """A model of the farm's catalogue, and its state."""

    name: str
    title: str = ""
    family: str = ""
    state: str = ""
    reason: str = ""
    license: str = ""


class Worker(ResponseModel):
    """A worker's state and jobs."""

    id: str
    name: str
    state: str
    device: str = ""
    resident: list[str] = Field(default_factory=list)


class Queue(ResponseModel):
    """The farm's state in one word, its reason, and the queued and running jobs of each lane."""

    state: str
    reason: str
    queued: int
    running: int
    workers: int
    lanes: list[dict[str, Any]] = Field(default_factory=list)


class Statistics(ResponseModel):
    """The farm's figures over an hour, a day or a week: totals, and one entry per period."""

    period: str
    step_s: int
    whole: dict[str, Any]
    points: list[dict[str, Any]]


class Limits(ResponseModel):
    """The limits of this key and its tenant, and their use."""

    tenant: dict[str, Any]
    key: dict[str, Any] | None = None
    requests: dict[str, Any]
    day_ends_at: datetime
    max_batch_rows: int
    max_body_bytes: int
    max_table_bytes: int


class Suggestion(ResponseModel):
    """Suggested additions to a prompt: the prompt with every addition, and each addition."""

    prompt: str
    enhanced: str
    additions: list[dict[str, str]]
    negative_prompt: str
    kind: str
    language: str


class Kind(ResponseModel):
    """A kind of image, and the settings that suit it on a model."""

    name: str
    title: dict[str, str]
    steps: int
    guidance: float
    negative_prompt: dict[str, str]
