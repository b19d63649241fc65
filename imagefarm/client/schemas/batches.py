"""Batches, their counts, costs and deliveries."""

from __future__ import annotations

from pydantic import Field

from imagefarm.client.schemas.base import ResponseModel, RowError
from imagefarm.states import BatchState


class Counts(ResponseModel):
    """Counts of a batch: the rows of its table, and its jobs by state."""

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
        """Jobs that have ended: succeeded, failed or cancelled."""
        return self.succeeded + self.failed + self.cancelled


class PickCounts(ResponseModel):
    """Counts of a batch's images by decision; open images have no decision yet."""

    approved: int = 0
    rejected: int = 0
    rerolled: int = 0
    open: int = 0


class BatchDelivery(ResponseModel):
    """A batch's delivery to a bucket. It is open until the batch is done, then waiting, delivered or failed."""

    bucket: str
    prefix: str
    state: str
    files: int = 0
    error: str | None = None


class Quote(ResponseModel):
    """The result of a dry run: images, predicted GPU-seconds, seconds to the last image, the first expanded prompts."""

    pictures: int
    gpu_seconds: float
    expected_finish_s: float | None = None
    prompts: list[str] = Field(default_factory=list)


class FailureGroup(ResponseModel):
    """The jobs of a batch that failed with one error code: an example of the detail, and the remedy."""

    code: str
    number: int
    detail: str = ""
    remedy: str = ""


class BatchProgress(ResponseModel):
    """The progress of a batch: its rate, seconds to its end at this rate, and the failures by error code."""

    jobs_per_minute: int = 0
    left_s: float | None = None
    failures: list[FailureGroup] = Field(default_factory=list)


class BatchStop(ResponseModel):
    """The reason for which the farm paused a batch: `failed` of its jobs failed with one error."""

    error: str
    failed: int


class Batch(ResponseModel):
    """A bulk submission. A dry run has a quote instead of an id and a state."""

    id: str | None = None
    name: str = ""
    state: BatchState | None = None
    stopped: BatchStop | None = None
    """The reason if the farm paused the batch; None if it was not paused, or was resumed."""
    counts: Counts = Field(default_factory=Counts)
    picks: PickCounts = Field(default_factory=PickCounts)
    delivery: BatchDelivery | None = None
    """The delivery to a bucket; None for a batch without one."""
    drafts: str | None = None
    """The batch whose approved images this batch renders as finals."""
    progress: BatchProgress | None = None
    """Only in the response for one batch; None in lists."""
    errors: list[RowError] = Field(default_factory=list)
    warnings: list[RowError] = Field(default_factory=list)
    """Warnings about input with another likely meaning: a column name similar to a known one, prompt syntax of other programs."""
    quote: Quote | None = None
    update_of: str | None = None
    """The earlier batch that this batch updates."""
    changes: dict[str, int] | None = None
    """For an update: the number of jobs that are reused, changed, new, unfinished and removed."""
    urls: dict[str, str] | None = None

    @property
    def is_final(self) -> bool:
        """True if all jobs of the batch have ended."""
        # the state changes at the next sweep; the counts are current
        all_ended = self.counts.ended == self.counts.accepted and self.state is not BatchState.VALIDATING
        return self.state in (BatchState.DONE, BatchState.CANCELLED) or all_ended

    @property
    def rests(self) -> bool:
        """True if none of its jobs runs without a request: the batch has ended, is paused, or waits for approval."""
        waiting = self.state in (BatchState.HELD, BatchState.PAUSED) and self.counts.queued == self.counts.running == 0
        return self.is_final or waiting


class BatchList(ResponseModel):
    """One page of batches; `next_cursor` is None on the last."""

    items: list[Batch]
    next_cursor: str | None = None
