"""Jobs as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from pydantic import ConfigDict, Field
from sqlalchemy.orm import Session

from api.http.context import AppContext
from api.http.schemas import ResponseModel, Time
from api.v1.schemas.images import ImageResponse, image_response
from imagefarm.recipe import Recipe
from imagefarm.states import JobState, PriorityClass
from imagefarm.store import jobs
from imagefarm.store.models import Job
from scheduler.batches.review.picks import ImageRef, picks_of
from scheduler.queue.new_job import NewJob
from scheduler.queue.pending_reason import PendingReason
from scheduler.queue.submit import Submission


class JobError(ResponseModel):
    """Why a job failed. `code` is stable, `detail` is for people."""

    code: str
    detail: str


class PendingReasonResponse(ResponseModel):
    """Why a job waits, or how it ended. `code` is stable, `message` is for people.

    Further fields hold the values in the message, such as `ahead`, the number of jobs that are served first.
    """

    model_config = ConfigDict(extra="allow", json_schema_serialization_defaults_required=True)
    __pydantic_extra__: dict[str, str | int]

    code: str
    message: str

    @classmethod
    def of(cls, reason: PendingReason) -> PendingReasonResponse:
        """Convert the reason to JSON."""
        return cls(code=reason.code, message=reason.message, **reason.values)


class Progress(ResponseModel):
    """The number of denoising steps that a job has done, and their total."""

    step: int
    steps: int


class JobUrls(ResponseModel):
    """URLs of a job and its actions."""

    self: str
    events: str
    cancel: str
    retry: str


class JobResponse(ResponseModel):
    """A job as it is now."""

    id: str
    state: JobState
    recipe: Recipe
    recipe_hash: str
    count: int
    priority: PriorityClass
    labels: dict[str, str]
    custom_id: str | None
    batch_id: str | None
    from_image: str | None = Field(description="The image that it replaces, or the draft of this final")
    attempt: int
    error: JobError | None
    pending_reason: PendingReasonResponse | None = Field(description="Why it waits, or how it ended; null in lists")
    progress: Progress
    images: list[ImageResponse]
    warnings: list[str]
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    urls: JobUrls


class JobList(ResponseModel):
    """A page of jobs, newest first. `next_cursor` is null on the last page."""

    items: list[JobResponse]
    next_cursor: str | None


def job_response(session: Session, app_context: AppContext, job: Job, base: str, *, step: int | None = None) -> JobResponse:
    """Convert one job to JSON, with its pending reason. `step` is its current step if the caller knows it."""
    if step is None:
        step = app_context.progress.read([job.id]).get(job.id, 0) if job.state == JobState.RUNNING else 0
    images = _images(session, [job], base)
    return _response(job, images.get(job.id, []), base, step, app_context.pending_reasons.explain(session, job))


def submitted_response(session: Session, app_context: AppContext, submission: Submission, base: str) -> JobResponse:
    """Convert a job that is about to be stored to JSON, from the data that its submit has read."""
    job, recipe, wait_context = submission
    # a new job has all columns that the reason needs
    reason = app_context.pending_reasons.explain(session, cast("Job", job), wait_context)
    return _made(job, recipe, base, reason=reason)


def job_responses(session: Session, app_context: AppContext, rows: Sequence[Job], base: str) -> list[JobResponse]:
    """Convert jobs to JSON, without their pending reasons."""
    images = _images(session, rows, base)
    steps = app_context.progress.read([job.id for job in rows if job.state == JobState.RUNNING])
    return [_response(job, images.get(job.id, []), base, steps.get(job.id, 0), None) for job in rows]


def _images(session: Session, rows: Sequence[Job], base: str) -> dict[str, list[ImageResponse]]:
    """Images by job id. Only succeeded jobs have images, because both are committed together."""
    found = jobs.images_of(session, [job.id for job in rows if job.state == JobState.SUCCEEDED])
    picks = picks_of(session, [job.id for job in rows if job.batch_id is not None and job.id in found])
    picked = {ref: decided.pick for ref, decided in picks.items()}
    files = jobs.channel_files_of(session, {image.id for images in found.values() for image in images})
    return {
        job_id: [
            image_response(image, base, picked.get(ImageRef(job_id, image.index)), files.get(image.id, ())) for image in images
        ]
        for job_id, images in found.items()
    }


def _response(job: Job, images: list[ImageResponse], base: str, step: int, reason: PendingReason | None) -> JobResponse:
    response = _made(job, Recipe.model_validate(job.recipe), base, images=images, progress=step, reason=reason)
    response.error = JobError(code=job.error_code, detail=job.error_detail or "") if job.error_code else None
    response.started_at, response.finished_at = job.started_at, job.finished_at
    return response


def _made(
    job: Job | NewJob,
    recipe: Recipe,
    base: str,
    *,
    reason: PendingReason | None,
    images: Sequence[ImageResponse] = (),
    progress: int = 0,
) -> JobResponse:
    """The fields that stored jobs and new jobs have in common."""
    url = f"{base}/api/v1/jobs/{job.id}"
    return JobResponse(
        id=job.id,
        state=JobState(job.state),
        recipe=recipe,
        recipe_hash=job.recipe_hash,
        count=job.count,
        priority=PriorityClass(job.priority_class),
        labels=job.labels,
        custom_id=job.custom_id,
        batch_id=job.batch_id,
        from_image=job.from_image,
        attempt=job.attempt,
        error=None,
        pending_reason=None if reason is None else PendingReasonResponse.of(reason),
        progress=Progress(
            step=recipe.steps if job.state == JobState.SUCCEEDED else min(progress, recipe.steps), steps=recipe.steps
        ),
        images=list(images),
        warnings=job.warnings,
        created_at=job.created_at,
        started_at=None,
        finished_at=None,
        urls=JobUrls(self=url, events=f"{url}/events", cancel=f"{url}/cancel", retry=f"{url}/retry"),
    )
