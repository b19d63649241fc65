"""Replay: render a job again, and compare the images."""

from __future__ import annotations

import math

from flask import Response
from pydantic import Field
from sqlalchemy.orm import Session

from api.http.context import AppContext
from api.http.idempotency_key import replay
from api.http.links import base_url
from api.http.routes import JSON, Caller, Routes, Scope
from api.http.schemas import ResponseModel
from api.v1.schemas.jobs import JobResponse, submitted_response
from imagefarm.errors import NotFound
from imagefarm.states import JobState
from imagefarm.store.idempotency import IdempotencyKey, Stored
from imagefarm.store.jobs import visible_job
from scheduler.queue.replay import Verdict, compare_with_original, replay_request
from scheduler.queue.submit import Submission, submit_job

routes = Routes(tag="jobs")


class ComparedImage(ResponseModel):
    """One image of a replay, compared with the original."""

    index: int
    verdict: Verdict = Field(description="near: PSNR of 40 dB or more; missing: one of the two images does not exist")
    psnr_db: float | None = Field(description="null if the pixels are equal or the sizes differ")
    differs: list[str] = Field(description="Conditions of the render that differ between the two audit records")


class ReplayResponse(ResponseModel):
    """The comparison of a replay with its original job."""

    job_id: str = Field(description="The replay")
    of: str = Field(description="The original job")
    state: JobState
    verdict: Verdict | None = Field(description="The verdict of the worst image; null until the replay has succeeded")
    images: list[ComparedImage]


@routes.post("/api/v1/jobs/{job_id}/replay", scope=Scope.SUBMIT, response=JobResponse, status=202, errors=(409, 422, 429))
def replay_job(app_context: AppContext, caller: Caller, job_id: str, idempotency: IdempotencyKey) -> Response:
    """Render a succeeded job's recipe again.

    The response is a new job with the same seeds and the label `replay_of`. When it has succeeded, its `replay` compares the
    images.
    """
    base = base_url()

    def respond(session: Session, submission: Submission) -> str:
        return submitted_response(session, app_context, submission, base).model_dump_json()

    with app_context.store.read() as session:
        request = replay_request(visible_job(session, job_id, caller.tenant_filter))
    submitted = submit_job(app_context, caller, request, respond=respond, key=idempotency)
    if isinstance(submitted, Stored):
        return replay(submitted)
    return Response(submitted.response, 202, content_type=JSON)


@routes.get("/api/v1/jobs/{job_id}/replay", scope=Scope.READ, response=ReplayResponse)
def get_replay(app_context: AppContext, caller: Caller, job_id: str) -> ReplayResponse:
    """Compare a replay's images with the original's.

    Equal pixel hashes mean identical images. Other images are compared by PSNR, with the conditions that differed.
    """
    with app_context.store.read() as session:
        job = visible_job(session, job_id, caller.tenant_filter)
        found = compare_with_original(
            session, app_context.outputs, job, caller.tenant_filter, decode_slots=app_context.decode_slots
        )
    if found is None:
        raise NotFound(f"job {job_id} is not a replay of a job that you may see")
    return ReplayResponse(
        job_id=job.id,
        of=found.original_id,
        state=JobState(job.state),
        verdict=found.verdict if job.state == JobState.SUCCEEDED else None,
        images=[
            ComparedImage(index=one.index, verdict=one.verdict, psnr_db=_finite(one.psnr_db), differs=list(one.differs))
            for one in found.images
        ],
    )


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None
