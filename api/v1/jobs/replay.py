"""Replay: render a job again, and see whether the pictures are the same."""

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
        request = replay_request(visible_job(session, job_id, caller.tenant_filter))
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
        job = visible_job(session, job_id, caller.tenant_filter)
        found = compare_with_original(
            session, app_context.outputs, job, caller.tenant_filter, decode_slots=app_context.decode_slots
        )
    if found is None:
        raise NotFound(f"job {job_id} is no replay of a job that you may see")
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
