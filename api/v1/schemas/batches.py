"""Batches as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.http.schemas import ResponseModel, Time
from api.v1.schemas.row_errors import RowError, row_errors
from imagefarm.states import BatchState, JobState, PriorityClass
from imagefarm.store.models import Batch, BatchDelivery
from scheduler.batches import lifecycle
from scheduler.batches.progress import read_progress
from scheduler.batches.quote import Quote
from scheduler.batches.review.picks import pick_counts
from scheduler.batches.table.incremental import row_change
from scheduler.batches.table.options import BatchOptions
from scheduler.batches.table.table_plan import RowPlan, TablePlan


class FailureGroup(ResponseModel):
    """Jobs of a batch that failed for the same reason."""

    code: str
    number: int
    detail: str = Field(description="The detail of one of the jobs")
    remedy: str = Field(description="Empty if the detail is sufficient")


class BatchProgress(ResponseModel):
    """The progress of a batch."""

    jobs_per_minute: int = Field(description="Jobs that succeeded in the last minute")
    left_s: float | None = Field(description="Seconds to its end at this rate; null when no job finishes or none is left")
    failures: list[FailureGroup] = Field(description="Why jobs failed, the most common reason first")


class BatchCounts(ResponseModel):
    """The table's rows, its jobs (accepted + rejected), the jobs that reuse images, and the jobs in each state."""

    rows: int
    jobs: int
    accepted: int
    rejected: int
    reused: int
    held: int
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int


class PickCounts(ResponseModel):
    """The numbers of images by pick; open: without a pick."""

    approved: int
    rejected: int
    rerolled: int
    open: int


class BatchDeliveryResponse(ResponseModel):
    """The delivery of a batch's files to a bucket. `state`: open until the batch is done, then waiting, delivered or failed."""

    bucket: str
    prefix: str
    state: Literal["open", "waiting", "delivered", "failed"]
    files: int = Field(description="Files in the bucket, including the manifest")
    sent: int = Field(description="Files that the last try sent; files that the bucket has are not sent again")
    bytes: int
    tries: int
    error: str | None
    finished_at: Time | None


class BatchChanges(ResponseModel):
    """The jobs of a table that was sent again, by their change since the earlier batch."""

    reused: int = Field(description="Unchanged jobs whose images are reused")
    changed: int
    new: int
    unfinished: int = Field(description="Unchanged jobs whose images were never finished")
    removed: int = Field(description="Jobs of the earlier batch that the table no longer has; report.csv names them")


class BatchStop(ResponseModel):
    """Why the farm paused a batch: the number of its jobs that failed with the same error. Resuming the batch resets it."""

    error: str
    failed: int


class BatchUrls(ResponseModel):
    """URLs of a batch's resources and actions."""

    self: str
    jobs: str
    pause: str
    resume: str
    cancel: str
    retry_failed: str
    approve: str
    images: str
    picks: str
    finals: str
    deliver: str
    manifest_csv: str
    manifest_jsonl: str
    report_csv: str
    errors_csv: str
    archive: str


class QuoteResponse(ResponseModel):
    """The cost of a dry run: images, predicted GPU-seconds, seconds to the last image, and the first expanded prompts."""

    pictures: int
    reused: int = Field(description="Of these, images that exist already; counted with `reuse=true`")
    gpu_seconds: float
    gpu_seconds_ahead: float = Field(description="Predicted for the jobs that are ahead in the queue")
    expected_finish_s: float | None = Field(description="Seconds from now; null when no live worker serves the models")
    workers: int = Field(description="Live workers that serve a model of the batch")
    models: list[str]
    prompts: list[str]


class RowReport(ResponseModel):
    """A dry run's report of one row. A rejected row has errors and no jobs."""

    row: int
    sku: str
    jobs: int
    pictures: int
    gpu_seconds: float
    prompt: str = Field(description="The prompt of its first job")
    change: str | None = Field(description="Of an update, or if an image exists: reused, changed, new, unfinished")
    errors: list[RowError]


class BatchResponse(ResponseModel):
    """A batch as it is now. A dry run has no id, state and URLs; it has a quote and a report by row."""

    id: str | None
    name: str
    state: BatchState | None
    priority: PriorityClass
    canary: int
    stopped: BatchStop | None = Field(None, description="Why the farm paused it; null if it did not, or after a resume")
    counts: BatchCounts
    update_of: str | None = Field(description="The earlier batch that this one updates")
    changes: BatchChanges | None = Field(description="Changes of an update; null for other batches")
    picks: PickCounts
    delivery: BatchDeliveryResponse | None = Field(description="The delivery to a bucket; null without one")
    drafts: str | None = Field(description="The batch whose approved images this one renders as finals")
    progress: BatchProgress | None = Field(None, description="Only in the response for a single batch; null in lists")
    errors: list[RowError] = Field(description="The first errors of the table's rows; errors.csv has them all")
    warnings: list[RowError] = Field(
        description="Parts of the table that were probably meant otherwise, such as a column name close to a known one"
    )
    quote: QuoteResponse | None
    rows: list[RowReport] | None = Field(description="The first 1,000 rows of a dry run; null for other batches")
    created_at: Time | None
    finished_at: Time | None
    urls: BatchUrls | None


class BatchList(ResponseModel):
    """A page of batches, newest first. `next_cursor` is null on the last page."""

    items: list[BatchResponse]
    next_cursor: str | None


def batch_responses(session: Session, batches: Sequence[Batch], base: str) -> list[BatchResponse]:
    """Convert batches to JSON, with the numbers of their jobs."""
    numbers = lifecycle.counts(session, list(batches))
    picks = pick_counts(session, list(numbers))
    deliveries = {
        delivery.batch_id: delivery
        for delivery in session.scalars(select(BatchDelivery).where(BatchDelivery.batch_id.in_(numbers)))
    }
    return [_response(batch, numbers[batch.id], picks[batch.id], deliveries.get(batch.id), base) for batch in batches]


def batch_detail(session: Session, batch: Batch, base: str) -> BatchResponse:
    """Convert one batch to JSON, with its progress."""
    response = batch_responses(session, [batch], base)[0]
    counts = response.counts
    progress = read_progress(session, batch.id, counts.held + counts.queued + counts.running)
    response.progress = BatchProgress.model_validate(asdict(progress))
    return response


def new_batch_response(session: Session, batch: Batch, base: str) -> BatchResponse:
    """The response for a batch that this transaction creates. A queued batch's held jobs count as queued: they are released
    next."""
    numbers = lifecycle.counts(session, [batch])[batch.id]
    if batch.state == BatchState.QUEUED:
        numbers["queued"], numbers["held"] = numbers["queued"] + numbers["held"], 0
    return _response(batch, numbers, pick_counts(session, [batch.id])[batch.id], session.get(BatchDelivery, batch.id), base)


def dry_run_response(plan: TablePlan, quote: Quote, options: BatchOptions) -> BatchResponse:
    """The response of a dry run."""
    return BatchResponse(
        id=None,
        name=options.name,
        state=None,
        priority=options.priority,
        canary=options.canary,
        counts=BatchCounts(
            rows=plan.rows,
            jobs=plan.accepted + plan.rejected,
            accepted=plan.accepted,
            rejected=plan.rejected,
            reused=0,
            **{str(state): 0 for state in JobState},
        ),
        update_of=options.update_of,
        changes=None if quote.changes is None else BatchChanges(**quote.changes),
        picks=PickCounts(approved=0, rejected=0, rerolled=0, open=0),
        delivery=None,
        drafts=None,
        errors=row_errors(plan.errors),
        warnings=row_errors(plan.warnings),
        rows=[_row_report(report) for report in plan.reports],
        quote=QuoteResponse(
            pictures=quote.pictures,
            reused=quote.reused,
            gpu_seconds=round(quote.gpu_s, 3),
            gpu_seconds_ahead=round(quote.ahead_s, 3),
            expected_finish_s=None if quote.finish_s is None else round(quote.finish_s, 1),
            workers=quote.workers,
            models=sorted(plan.models),
            prompts=plan.prompts,
        ),
        created_at=None,
        finished_at=None,
        urls=None,
    )


def _row_report(report: RowPlan) -> RowReport:
    return RowReport(
        row=report.row,
        sku=report.sku,
        jobs=report.jobs,
        pictures=report.pictures,
        gpu_seconds=round(report.gpu_s, 3),
        prompt=report.prompt,
        change=row_change(report.changes),
        errors=row_errors(report.errors),
    )


def _response(
    batch: Batch, numbers: dict[str, int], picks: dict[str, int], delivery: BatchDelivery | None, base: str
) -> BatchResponse:
    url = f"{base}/api/v1/batches/{batch.id}"
    state = BatchState(batch.state)
    if state is BatchState.QUEUED and any(numbers[name] for name in lifecycle.STARTED):
        state = BatchState.RUNNING  # the sweep stores this state later
    return BatchResponse(
        id=batch.id,
        name=batch.name,
        state=state,
        priority=PriorityClass(batch.options.get("priority", PriorityClass.BULK)),
        canary=batch.options.get("canary", 0),
        stopped=BatchStop(**stopped) if (stopped := batch.options.get(lifecycle.STOPPED)) else None,
        counts=BatchCounts(**numbers),
        update_of=batch.options.get("update_of"),
        changes=BatchChanges(**changes) if (changes := batch.options.get("changes")) else None,
        picks=PickCounts(**picks),
        delivery=None
        if delivery is None
        else BatchDeliveryResponse.model_validate({name: getattr(delivery, name) for name in BatchDeliveryResponse.model_fields}),
        drafts=batch.drafts,
        errors=[RowError.model_validate(error) for error in batch.errors],
        warnings=[RowError.model_validate(warning) for warning in batch.options.get("warnings", ())],
        quote=None,
        rows=None,
        created_at=batch.created_at,
        finished_at=batch.finished_at,
        urls=BatchUrls(
            self=url,
            jobs=f"{base}/api/v1/jobs?batch={batch.id}",
            pause=f"{url}/pause",
            resume=f"{url}/resume",
            cancel=f"{url}/cancel",
            retry_failed=f"{url}/retry-failed",
            approve=f"{url}/approve",
            images=f"{url}/images",
            picks=f"{url}/picks",
            finals=f"{url}/finals",
            deliver=f"{url}/deliver",
            manifest_csv=f"{url}/manifest.csv",
            manifest_jsonl=f"{url}/manifest.jsonl",
            report_csv=f"{url}/report.csv",
            errors_csv=f"{url}/errors.csv",
            archive=f"{url}/archive.zip",
        ),
    )
