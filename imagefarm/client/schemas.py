"""The farm's answers as typed values. Fields that a newer farm adds are kept and do no harm."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from imagefarm.states import BatchState, JobState


class ResponseModel(BaseModel):
    model_config = ConfigDict(extra="allow")


class Image(ResponseModel):
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
    pick: str | None = None
    """What was decided of it in its batch: approved, rejected, rerolled."""
    scores: dict[str, Any] | None = None
    """What the batch's gate measured, and its verdict."""
    ms: float | None = None
    """Milliseconds from claim to stored."""


class FoundImage(Image):
    """A picture with the id of its job."""

    job_id: str


class BatchImage(Image):
    """A picture of a batch with its place in it."""

    job_id: str
    row: int | None = None
    name: str | None = None
    prompt: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    replaced_by: str | None = None
    from_image: str | None = None


class ImageList(ResponseModel):
    """One page of pictures; `next_cursor` is None on the last."""

    items: list[FoundImage]
    next_cursor: str | None = None


class BatchImageList(ResponseModel):
    """One page of a batch's pictures; `next_cursor` is None on the last."""

    items: list[BatchImage]
    next_cursor: str | None = None


class Progress(ResponseModel):
    """How far a running job is, in denoising steps."""

    step: int = 0
    steps: int = 0


class JobError(ResponseModel):
    """Why a job failed."""

    code: str = ""
    detail: str = ""


class PendingReason(ResponseModel):
    """Why a job waits, or what became of it. The values that `message` names are further attributes, such as `ahead`."""

    code: str
    message: str = ""


class Job(ResponseModel):
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
    pending_reason: PendingReason | None = None
    """What it waits for, or what became of it; lists leave it out."""
    progress: Progress = Field(default_factory=Progress)
    images: list[Image] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    urls: dict[str, str] = Field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why it failed, or what it waits for, in a sentence; empty in lists."""
        if self.error is not None:
            return self.error.detail
        return "" if self.pending_reason is None else self.pending_reason.message

    @property
    def is_final(self) -> bool:
        """Whether it has ended: succeeded, failed or cancelled."""
        return self.state.is_final


class ComparedImage(ResponseModel):
    """One picture of a replay: identical, near, different or missing."""

    index: int
    verdict: str
    psnr_db: float | None = None
    differs: list[str] = Field(default_factory=list)
    """What was not the same in the making."""


class Replay(ResponseModel):
    """What a replay shows; `verdict` is the worst of its pictures', None until it has succeeded."""

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
    """What a change of many jobs did: how many matched, how many were changed."""

    matched: int
    changed: int


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
        """Jobs that have ended, however."""
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


class RowError(ResponseModel):
    """What is wrong with a row of a table, and how to mend it."""

    row: int | None = None
    field: str = ""
    detail: str = ""
    remedy: str = ""


class Quote(ResponseModel):
    """What a dry run says: pictures, predicted GPU-seconds, seconds to the last picture, the first expanded prompts."""

    pictures: int
    gpu_seconds: float
    expected_finish_s: float | None = None
    prompts: list[str] = Field(default_factory=list)


class FailureGroup(ResponseModel):
    """Jobs of a batch that failed for one reason, with the detail of one of them and what can be done."""

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
    """Why the farm itself has paused a batch: so many of its jobs failed with one error."""

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
    quote: Quote | None = None
    update_of: str | None = None
    """The batch that this one brings up to date."""
    changes: dict[str, int] | None = None
    """Of an update: how many jobs are reused, changed, new, unfinished, removed."""
    urls: dict[str, str] | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing of it will run any more."""
        # the state follows at the next sweep; the counts are of this moment
        all_ended = self.counts.ended == self.counts.accepted and self.state is not BatchState.VALIDATING
        return self.state in (BatchState.DONE, BatchState.CANCELLED) or all_ended

    @property
    def rests(self) -> bool:
        """Whether nothing of it will run by itself: it has ended, or the rest is paused or waits for approval."""
        waiting = self.state in (BatchState.HELD, BatchState.PAUSED) and self.counts.queued == self.counts.running == 0
        return self.is_final or waiting


class BatchList(ResponseModel):
    """One page of batches; `next_cursor` is None on the last."""

    items: list[Batch]
    next_cursor: str | None = None


class Asset(ResponseModel):
    """A picture that was sent in."""

    id: str
    name: str
    sha256: str
    format: str
    width: int
    height: int
    bytes: int
    created_at: datetime
    url: str


class AssetList(ResponseModel):
    """One page of assets; `next_cursor` is None on the last."""

    items: list[Asset]
    next_cursor: str | None = None


class Uploaded(ResponseModel):
    """What became of a ZIP of pictures: their assets, how many are new, and which files are no pictures."""

    items: list[Asset]
    stored: int
    errors: list[RowError] = Field(default_factory=list)


class Webhook(ResponseModel):
    """Where messages go. `secret` is there only in the answer that made it."""

    id: str
    url: str
    kinds: list[str]
    subject: str | None = None
    secret: str | None = Field(default=None, repr=False)
    created_at: datetime


class WebhookDelivery(ResponseModel):
    """One message to a webhook: waiting, delivered or dead. `id` is its `webhook-id` header, the same at every try."""

    id: str
    kind: str
    state: str
    tries: int
    status: int | None = None
    error: str | None = None
    body: str
    next_at: datetime
    created_at: datetime
    finished_at: datetime | None = None


class WebhookDeliveryList(ResponseModel):
    """One page of messages; `next_cursor` is None on the last."""

    items: list[WebhookDelivery]
    next_cursor: str | None = None


class ApiKey(ResponseModel):
    """An API key. `key` itself is there only in the answer that made it."""

    id: str
    name: str
    prefix: str
    tenant: str
    scopes: list[str]
    limits: dict[str, int] = Field(default_factory=dict)
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    key: str | None = Field(default=None, repr=False)


class User(ResponseModel):
    """A person who signs in to the pages."""

    id: str
    name: str
    role: str
    tenant: str
    created_at: datetime
    disabled_at: datetime | None = None
    last_sign_in_at: datetime | None = None


class Event(ResponseModel):
    """One entry of the audit."""

    id: int
    at: datetime
    kind: str
    subject: str
    data: dict[str, Any] = Field(default_factory=dict)


class Attempt(ResponseModel):
    """One claim of a job by a worker. `outcome` is None while it lasts."""

    attempt: int
    worker: str
    claimed_at: datetime
    ended_at: datetime | None = None
    outcome: str | None = None
    reason: str | None = None


class Setting(ResponseModel):
    """A setting in force, as text, and where it came from. Secrets are masked."""

    name: str
    value: str
    origin: str
    meaning: str = ""


class EventList(ResponseModel):
    """One page of the audit; `next_cursor` is None on the last."""

    items: list[Event]
    next_cursor: str | None = None


class Chain(ResponseModel):
    """Whether the audit is whole."""

    whole: bool
    sealed: int
    unsealed: int
    head: str
    broken_at: int | None = None
    detail: str


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


class Tenant(ResponseModel):
    """A tenant: its weight, its limits with what is used of them, and its part of today's work."""

    id: str
    name: str
    weight: float
    limits: dict[str, int] = Field(default_factory=dict)
    queued: int
    max_queued: int
    running: int
    max_running: int
    images_today: int
    images_per_day: int | None
    pixels: int | None
    steps: int | None
    share: float
    fair_share: float


class Suggestion(ResponseModel):
    """What a prompt leaves unsaid: the prompt with every addition, and each addition."""

    prompt: str
    enhanced: str
    additions: list[dict[str, str]]
    negative_prompt: str
    kind: str
    language: str


class Kind(ResponseModel):
    """A kind of picture, and what suits it on a model."""

    name: str
    title: dict[str, str]
    steps: int
    guidance: float
    negative_prompt: dict[str, str]


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


class LookupResult(ResponseModel):
    """What is known of a picture's file. `found_by` is file, pixels, metadata, or None if it is not of this farm."""

    sha256: str
    found_by: str | None = None
    items: list[FoundImage] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)
