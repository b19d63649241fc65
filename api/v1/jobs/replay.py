"""Replay: render a job again, and see whether the pictures are the same."""

from __future__ import annotations

import math

from flask import Response
from pydantic import Field
from sqlalchemy.orm import Session

from api.http.context import AppContext
from api.http.idempotency_key import replay
from api.http.routes import JSON, Caller, Routes, Scope
from api.http.schemas import ResponseModel
from api.v1.jobs.routes import visible_job
from api.v1.jobs.schemas import JobResponse, base_url, submitted_response
from imagefarm.errors import NotFound
from imagefarm.states import JobState
from imagefarm.store.idempotency import IdempotencyKey, Stored
from imagefarm.store.jobs import images_of
from imagefarm.store.models import Job
from scheduler.queue.replay import LABEL, Comparison, Verdict, compare, replay_request
from scheduler.queue.submit import Submission, submit_job

routes = Routes(tag="jobs")


class ComparedImage(ResponseModel):
    """One image of a replay, held against the first making's."""

    index: int
    verdict: Verdict = Field(description="near: 40 dB or more; missing: one of the two is not there")
    psnr_db: float | None = Field(description="null where the pixels are equal, or the sizes are not")
    differs: list[str] = Field(description="What was not the same in the making, by the two audit records")


class ReplayResponse(ResponseModel):
    """What a replay shows."""

    job_id: str = Field(description="The replay")
    of: str = Field(description="The job that it renders again")
    state: JobState
    verdict: Verdict | None = Field(description="Of the worst of its images; null until it has succeeded")
    images: list[ComparedImage]


WORST_FIRST = (Verdict.MISSING, Verdict.DIFFERENT, Verdict.NEAR, Verdict.IDENTICAL)


@routes.post("/api/v1/jobs/{job_id}/replay", scope=Scope.SUBMIT, response=JobResponse, status=202, errors=(409, 422, 429))
def replay_job(app_context: AppContext, caller: Caller, job_id: str, idempotency: IdempotencyKey) -> Response:
    """Render a succeeded job's recipe again.

    The answer is a new job with the same seeds, labelled `replay_of`; when it has succeeded, its `replay` tells whether the
    pictures are the same.
    """
    base = base_url()

    def respond(session: Session, submission: Submission) -> str:
        return submitted_response(session, app_context, submission, base).model_dump_json()

    with app_context.store.read() as session:
        request = replay_request(visible_job(session, caller, job_id))
    submitted = submit_job(app_context, caller, request, respond=respond, key=idempotency)
    if isinstance(submitted, Stored):
        return replay(submitted)
    return Response(submitted.response, 202, content_type=JSON)


@routes.get("/api/v1/jobs/{job_id}/replay", scope=Scope.READ, response=ReplayResponse)
def get_replay(app_context: AppContext, caller: Caller, job_id: str) -> ReplayResponse:
    """Hold a replay's pictures against those of the first making.

    Identical pixels are told by their hashes; else by PSNR, with what differed in the making.
    """
    with app_context.store.read() as session:
        job = visible_job(session, caller, job_id)
        found = compared(session, app_context, caller, job)
    if found is None:
        raise NotFound(f"job {job_id} is no replay of a job that you may see")
    of, images = found
    return ReplayResponse(
        job_id=job.id,
        of=of,
        state=JobState(job.state),
        verdict=worst(images) if job.state == JobState.SUCCEEDED else None,
        images=[
            ComparedImage(index=one.index, verdict=one.verdict, psnr_db=_finite(one.psnr_db), differs=list(one.differs))
            for one in images
        ],
    )


def compared(session: Session, app_context: AppContext, caller: Caller, job: Job) -> tuple[str, tuple[Comparison, ...]] | None:
    """The job that this one replays and how each image compares; None if it is no replay of a job the caller may see."""
    try:
        origin = visible_job(session, caller, job.labels.get(LABEL, ""))
    except NotFound:
        return None
    images = images_of(session, [origin.id, job.id])
    with app_context.decode_slots:
        return origin.id, compare(app_context.outputs, images[origin.id], images[job.id], min(job.count, origin.count))


def worst(images: tuple[Comparison, ...]) -> Verdict:
    """The verdict of the whole: that of the worst image."""
    return min((one.verdict for one in images), key=WORST_FIRST.index, default=Verdict.MISSING)


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None
