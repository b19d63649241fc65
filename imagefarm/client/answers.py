"""The farm's answers as typed values. Fields that a newer farm adds are kept and do no harm."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from imagefarm.states import BatchState, JobState


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow")


class Image(Answer):
    """One picture of a job. `seed` is unsigned 64-bit."""

    id: str
    index: int
    seed: int
    width: int
    height: int
    format: str = "png"
    sha256: str
    pixel_sha256: str
    bytes: int
    url: str
    ms: float | None = None
    """Milliseconds from claim to stored."""


class Progress(Answer):
    """How far a running job is, in denoising steps."""

    step: int = 0
    steps: int = 0


class JobError(Answer):
    """Why a job failed."""

    code: str = ""
    detail: str = ""


class Job(Answer):
    """A job as the farm sees it. Times are UTC."""

    id: str
    state: JobState
    recipe: dict[str, Any]
    recipe_hash: str
    count: int
    attempt: int
    batch_id: str | None = None
    custom_id: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    error: JobError | None = None
    why: str | None = None
    """What it waits for, or what became of it; lists leave it out."""
    progress: Progress = Field(default_factory=Progress)
    images: list[Image] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    urls: dict[str, str] = Field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether it has ended: succeeded, failed or cancelled."""
        return self.state.is_final


class JobList(Answer):
    """One page of jobs; `next_cursor` is None on the last."""

    items: list[Job]
    next_cursor: str | None = None


class Counts(Answer):
    """Numbers of a batch: rows of its table, and its jobs by state."""

    rows: int = 0
    jobs: int = 0
    accepted: int = 0
    rejected: int = 0
    held: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def ended(self) -> int:
        """Jobs that have ended, however."""
        return self.succeeded + self.failed + self.cancelled


class Batch(Answer):
    """A bulk submission. A dry run has no id."""

    id: str | None = None
    name: str = ""
    state: BatchState | None = None
    counts: Counts = Field(default_factory=Counts)
    errors: list[dict[str, Any]] = Field(default_factory=list)
    urls: dict[str, str] = Field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether nothing of it will run any more."""
        return self.state in (BatchState.DONE, BatchState.CANCELLED)


class Model(Answer):
    """A model of the farm's catalogue, and whether it is ready."""

    name: str
    title: str = ""
    family: str = ""
    state: str = ""
    reason: str = ""
    license: str = ""


class Worker(Answer):
    """A worker as the farm sees it."""

    id: str
    name: str
    state: str
    device: str = ""
    resident: list[str] = Field(default_factory=list)


class Queue(Answer):
    """The lanes with what waits and runs on each."""

    lanes: list[dict[str, Any]] = Field(default_factory=list)
