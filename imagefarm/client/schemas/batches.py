"""Batches, their counts, costs and deliveries."""

from __future__ import annotations

from pydantic import Field

from imagefarm.client.schemas.base import ResponseModel, RowError
from imagefarm.states import BatchState


class Counts(ResponseModel):
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
        """Jobs that have ended: succeeded, failed or cancelled."""
        return self.succeeded + self.failed + self.cancelled


class PickCounts(ResponseModel):
    """How many pictures of a batch were decided how; open: not yet."""

    approved: int = 0
    rejected: int = 0
    rerolled: int = 0
    open: int = 0


class BatchDelivery(ResponseModel):
    """A batch's files on their way to a bucket: open until it is done, then waiting, delivered or failed."""

    bucket: str
    prefix: str
    state: str
    files: int = 0
    error: str | None = None


class Quote(ResponseModel):
    """What a dry run says: pictures, predicted GPU-seconds, seconds to the last picture, the first expanded prompts."""

    pictures: int
    gpu_seconds: float
    expected_finish_s: float | None = None
    prompts: list[str] = Field(default_factory=list)


class FailureGroup(ResponseModel):
    """Jobs of a batch that failed for one reason, with the detail of one of them and the remedy."""

    code: str
    number: int
    detail: str = ""
    remedy: str = ""


class BatchProgress(ResponseModel):
    """How a batch gets on: its rate, seconds to its end at this rate, and what failed, by reason."""

    jobs_per_minute: int = 0
    left_s: float | None = None
    failures: list[FailureGroup] = Field(default_factory=list)


class BatchStop(ResponseModel):
    """Why the farm paused a batch: `failed` of its jobs failed with one error."""

    error: str
    failed: int


class Batch(ResponseModel):
    """A bulk submission. A dry run has no id and no state, but a quote."""

    id: str | None = None
    name: str = ""
    state: BatchState | None = None
    stopped: BatchStop | None = None
    """Why the farm paused it; None for one that was not, or was resumed."""
    counts: Counts = Field(default_factory=Counts)
    picks: PickCounts = Field(default_factory=PickCounts)
    delivery: BatchDelivery | None = None
    """Of a batch that is delivered to a bucket."""
    drafts: str | None = None
    """The batch whose approved pictures this one renders finally."""
    progress: BatchProgress | None = None
    """Of one batch that was asked for; None in lists."""
    errors: list[RowError] = Field(default_factory=list)
    warnings: list[RowError] = Field(default_factory=list)
    """What may not be meant as it was read: a column that is almost a known one, a prompt with marks of other programs."""
    quote: Quote | None = None
    update_of: str | None = None
    """The batch that this one brings up to date."""
    changes: dict[str, int] | None = None
    """Of an update: how many jobs are reused, changed, new, unfinished, removed."""
    urls: dict[str, str] | None = None

    @property
    def is_final(self) -> bool:
        """True if all its jobs have ended."""
        # the state follows at the next sweep; the counts are of this moment
        all_ended = self.counts.ended == self.counts.accepted and self.state is not BatchState.VALIDATING
        return self.state in (BatchState.DONE, BatchState.CANCELLED) or all_ended

    @property
    def rests(self) -> bool:
        """True if none of its jobs will run by itself: it has ended, is paused, or waits for approval."""
        waiting = self.state in (BatchState.HELD, BatchState.PAUSED) and self.counts.queued == self.counts.running == 0
        return self.is_final or waiting


class BatchList(ResponseModel):
    """One page of batches; `next_cursor` is None on the last."""

    items: list[Batch]
    next_cursor: str | None = None
