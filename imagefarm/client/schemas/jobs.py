"""Jobs, their attempts and their replays."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from imagefarm.client.schemas.base import ResponseModel
from imagefarm.client.schemas.images import Image
from imagefarm.states import JobState


class Progress(ResponseModel):
    """The progress of a running job, in denoising steps."""

    step: int = 0
    steps: int = 0


class JobError(ResponseModel):
    """The error of a failed job."""

    code: str = ""
    detail: str = ""


class PendingReason(ResponseModel):
    """The reason a job waits, or its outcome. The values that `message` names are further attributes, such as `ahead`."""

    code: str
    message: str = ""


class Job(ResponseModel):
    """A job. Times are UTC."""

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
    pending_reason: PendingReason | None = None
    """The reason the job waits, or its outcome; absent in lists."""
    progress: Progress = Field(default_factory=Progress)
    images: list[Image] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    urls: dict[str, str] = Field(default_factory=dict)

    @property
    def reason(self) -> str:
        """The job's error, or the reason it waits, as a sentence; empty in lists."""
        if self.error is not None:
            return self.error.detail
        return "" if self.pending_reason is None else self.pending_reason.message

    @property
    def is_final(self) -> bool:
        """True if the job has succeeded, failed or been cancelled."""
        return self.state.is_final


class ComparedImage(ResponseModel):
    """One image of a replay: identical, near, different or missing."""

    index: int
    verdict: str
    psnr_db: float | None = None
    differs: list[str] = Field(default_factory=list)
    """Conditions that differed between the two renderings."""


class Replay(ResponseModel):
    """The result of a replay. `verdict` is the worst verdict of its images; None until the replay has succeeded."""

    job_id: str
    of: str
    state: JobState
    verdict: str | None = None
    images: list[ComparedImage] = Field(default_factory=list)


class JobList(ResponseModel):
    """One page of jobs; `next_cursor` is None on the last."""

    items: list[Job]
    next_cursor: str | None = None


class BulkResult(ResponseModel):
    """The result of a bulk action: the number of jobs that matched, and of those that were changed."""

    matched: int
    changed: int


class Attempt(ResponseModel):
    """One claim of a job by a worker. `outcome` is None while the attempt runs."""

    attempt: int
    worker: str
    claimed_at: datetime
    ended_at: datetime | None = None
    outcome: str | None = None
    reason: str | None = None
