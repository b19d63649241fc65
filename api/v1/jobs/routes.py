"""Jobs: submit, get, list, cancel, retry."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

from flask import Response, request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.http.context import AppContext
from api.http.cursor import make_cursor, read_cursor
from api.http.event_stream import POLL_S
from api.http.idempotency_key import replay
from api.http.links import base_url, next_link
from api.http.routes import JSON, PREFER, Reply, Routes
from api.http.schemas import Body, Query, QueryTime, ResponseModel
from api.live.event_fanout import CLOSE
from api.v1.schemas.jobs import JobList, JobResponse, job_response, job_responses, submitted_response
from imagefarm.auth import Caller, Scope
from imagefarm.errors import NotFound, Unavailable
from imagefarm.ids import is_id
from imagefarm.recipe import MAX_COUNT, JobRequest
from imagefarm.states import JobState
from imagefarm.store import jobs
from imagefarm.store.idempotency import IdempotencyKey, Stored
from imagefarm.store.job_access_paths import JobFilter
from imagefarm.store.models import Job
from imagefarm.text import NotBool, check_text
from scheduler.batches import bulk_actions
from scheduler.batches.bulk_actions import MAX_JOBS, BulkReport
from scheduler.queue import submit
from scheduler.queue.cancel import cancel_job
from scheduler.queue.submit import Submission

routes = Routes(tag="jobs")

NO_BATCH = "none"
WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?:$|[,;\s])", re.IGNORECASE)


def _label(text: str) -> str:
    name, colon, _ = text.partition(":")
    if not colon or not name:
        raise ValueError("is not a label; write it name:value")
    return text


class JobFilters(BaseModel):
    """Filters of jobs. A job must match all that are given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: list[JobState] = Field(default_factory=list, description="Any of these; may be repeated")
    model: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(check_text)] | None = None
    batch: Annotated[str, Field(min_length=1, max_length=40), AfterValidator(check_text)] | None = Field(
        None, description="Id of a batch; `none` for jobs without a batch"
    )
    label: list[Annotated[str, Field(max_length=330, pattern="^[^:]+:"), AfterValidator(check_text), AfterValidator(_label)]] = (
        Field(default_factory=list, max_length=8, description="`name:value`; may be repeated")
    )
    text: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_text)] | None = Field(
        None, description="A part of the prompt"
    )
    custom_id: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(check_text)] | None = None
    worker: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(check_text)] | None = Field(
        None, description="Name of a worker that claimed the job"
    )
    created_after: QueryTime | None = None
    created_before: QueryTime | None = None

    def wanted(self, caller: Caller) -> JobFilter:
        """Convert to the store's filter, limited to the jobs that the caller may see."""
        return JobFilter(
            tenant_id=caller.tenant_filter,
            states=tuple(dict.fromkeys(self.state)),
            model=self.model,
            batch_id=None if self.batch == NO_BATCH else self.batch,
            single=self.batch == NO_BATCH,
            custom_id=self.custom_id,
            worker=self.worker,
            labels=tuple((name, value) for name, _, value in (label.partition(":") for label in self.label)),
            text=self.text,
            created_after=self.created_after,
            created_before=self.created_before,
        )


class JobQuery(JobFilters, Query):
    """Filters of the list of jobs. A job must match all that are given."""

    limit: int = Field(50, ge=1, le=200)
    cursor: Annotated[str, Field(max_length=200)] | None = Field(None, description="`next_cursor` of the previous page")


class BulkBody(JobFilters, Body):
    """The jobs to change. A job must match all filters that are given."""

    expected: Annotated[int, Field(ge=0, le=MAX_JOBS), NotBool] | None = Field(
        None,
        description="The number of matches you saw. If more match now, nothing changes. Without it the request only counts",
    )


class BulkResponse(ResponseModel):
    """The result of a bulk change."""

    matched: int = Field(description="Jobs that match and could be changed")
    changed: int = Field(description="Jobs that this request changed; the others ended or were changed meanwhile")


@routes.post(
    "/api/v1/jobs", scope=Scope.SUBMIT, response=JobResponse, status=202, extra_statuses=(200,), errors=(429,), headers=(PREFER,)
)
def submit_job(app_context: AppContext, caller: Caller, body: JobRequest, idempotency: IdempotencyKey) -> Reply | Response:
    """Submit a job.

    Everything but the prompt has a default. The response is 202 once the job is committed; with `Prefer: wait=N` it is 200 if the
    job ends within N seconds. `init_image` is an asset, or a URL whose image becomes an asset.
    """
    base = base_url()

    def respond(session: Session, submission: Submission) -> str:
        return submitted_response(session, app_context, submission, base).model_dump_json()

    submitted = submit.submit_job(app_context, caller, body, respond=respond, key=idempotency)
    wait_s = _wait_s(app_context)
    if isinstance(submitted, Stored):
        return _waited(app_context, caller, json.loads(submitted.response)["id"], base) if wait_s else replay(submitted)
    if wait_s:
        return _waited(app_context, caller, submitted.id, base)
    headers = {"Location": f"{base}/api/v1/jobs/{submitted.id}"}
    return Response(submitted.response, 202, content_type=JSON, headers=headers)


@routes.get("/api/v1/jobs", scope=Scope.READ, response=JobList)
def list_jobs(app_context: AppContext, caller: Caller, query: JobQuery) -> Reply:
    """List jobs, newest first.

    Continue with `next_cursor` (also in the `Link` header) until it is null. A page may have fewer jobs than `limit`, or none,
    although more follow: the search for rare values (a `label`, a `text`) stops after a short time per page.
    """
    wanted = query.wanted(caller)
    before = read_cursor(query.cursor, repr(wanted), form=partial(is_id, prefix="job"))
    with app_context.store.read() as session:
        page = jobs.list_jobs(session, wanted, before=before, limit=query.limit)
        items = job_responses(session, app_context, page.jobs, base_url())
    cursor = make_cursor(page.next_before, repr(wanted)) if page.next_before else None
    return Reply(JobList(items=items, next_cursor=cursor), headers=next_link(cursor))


@routes.get("/api/v1/jobs/{job_id}", scope=Scope.READ, response=JobResponse)
def get_job(app_context: AppContext, caller: Caller, job_id: str) -> JobResponse:
    """Get a job."""
    with app_context.store.read() as session:
        return job_response(session, app_context, jobs.visible_job(session, job_id, caller.tenant_filter), base_url())


class PreviewQuery(Query):
    """Which image of the job. A job of many images has previews of the first four."""

    index: int = Field(0, ge=0, lt=MAX_COUNT)
    step: int | None = Field(None, ge=0, description="No effect: it gives each step its own URL")


@routes.get("/api/v1/jobs/{job_id}/preview", scope=Scope.READ, media="image/webp")
def get_preview(app_context: AppContext, caller: Caller, job_id: str, query: PreviewQuery) -> Response:
    """Get the preview of an image that is being rendered.

    A preview exists while a job with `preview` runs; otherwise the response is 404. Previews are not stored.
    """
    with app_context.store.read() as session:
        running = jobs.visible_job(session, job_id, caller.tenant_filter).state == JobState.RUNNING
    data = app_context.progress.preview(job_id, query.index) if running else None
    if data is None:
        raise NotFound(
            f"no preview of image {query.index} of {job_id}: the job is not running or has no preview", code="no_preview"
        )
    return Response(data, content_type="image/webp", headers={"Cache-Control": "no-store"})


@routes.post("/api/v1/jobs/{job_id}/cancel", scope=Scope.SUBMIT, response=JobResponse, errors=(409,))
def cancel(app_context: AppContext, caller: Caller, job_id: str) -> JobResponse:
    """Cancel a job.

    A running job stops within one step. Cancelling again changes nothing. A succeeded or failed job cannot be cancelled.
    """
    cancel_job(app_context.store, job_id, caller.tenant_filter, by=caller.name)
    with app_context.store.read() as session:
        return job_response(session, app_context, jobs.visible_job(session, job_id, caller.tenant_filter), base_url())


@routes.post("/api/v1/jobs/{job_id}/retry", scope=Scope.SUBMIT, response=JobResponse, status=202, errors=(409, 429))
def retry(app_context: AppContext, caller: Caller, job_id: str) -> JobResponse:
    """Retry a failed or cancelled job.

    The recipe and its seeds stay the same. A waiting or running job is left unchanged.
    """
    job = bulk_actions.retry_job(app_context, caller, job_id)
    with app_context.store.read() as session:
        return job_response(session, app_context, job, base_url())


@routes.post("/api/v1/jobs/cancel", scope=Scope.SUBMIT, response=BulkResponse, errors=(409,))
def cancel_all(app_context: AppContext, caller: Caller, body: BulkBody, idempotency: IdempotencyKey) -> Reply | Response:
    """Cancel all jobs that match.

    Send the request first without `expected`: the response has the number of matching jobs, and nothing changes. Then send it
    with that number: all matching unfinished jobs are cancelled, and running ones stop within one step. Repeating it changes
    nothing.
    """

    def change() -> BulkReport:
        return bulk_actions.cancel_matching(app_context.store, body.wanted(caller), expected=body.expected, by=caller.name)

    return _bulk(app_context, caller, idempotency, change)


@routes.post("/api/v1/jobs/retry", scope=Scope.SUBMIT, response=BulkResponse, errors=(409, 429))
def retry_all(app_context: AppContext, caller: Caller, body: BulkBody, idempotency: IdempotencyKey) -> Reply | Response:
    """Retry all failed or cancelled jobs that match.

    Send the request first without `expected`, as for cancelling. Use an `Idempotency-Key`, so a repeated request does not retry
    jobs that have failed again since.
    """

    def change() -> BulkReport:
        return bulk_actions.retry_matching(
            app_context.store,
            body.wanted(caller),
            app_context.settings,
            expected=body.expected,
            by=caller.name,
            quota=caller.quota,
        )

    return _bulk(app_context, caller, idempotency, change)


def _bulk(
    app_context: AppContext, caller: Caller, idempotency: IdempotencyKey, change: Callable[[], BulkReport]
) -> Reply | Response:
    """Run a bulk change, which takes many transactions, once per Idempotency-Key."""
    with app_context.store.write() as session:
        stored = idempotency.take(session, caller.tenant_id)
    if stored is not None:
        return replay(stored)
    try:
        report = change()
    except BaseException:
        app_context.store.run_with_retry(lambda session: idempotency.give_back(session, caller.tenant_id))
        raise
    for model in sorted(report.models):
        app_context.ticket_sender.notify_lane(model)
    response = BulkResponse(matched=report.matched, changed=report.changed)
    app_context.store.run_with_retry(lambda session: idempotency.keep(session, caller.tenant_id, 200, response.model_dump_json()))
    return Reply(response)


def _wait_s(app_context: AppContext) -> float:
    """Seconds that the caller will wait for the job's end: `Prefer: wait=N`, up to the setting `max_wait_s`."""
    found = WAIT.search(",".join(request.headers.getlist("Prefer")))
    return min(float(found[1]), app_context.settings.max_wait_s) if found else 0.0


def _waited(app_context: AppContext, caller: Caller, job_id: str, base: str) -> Reply:
    """The job's response, after waiting for its end for as long as the caller prefers."""
    wait_s = _wait_s(app_context)
    ended = wait_s > 0 and wait_for_end(app_context, job_id, wait_s)
    with app_context.store.read() as session:
        response = job_response(session, app_context, jobs.visible_job(session, job_id, caller.tenant_filter), base)
    headers = {"Location": response.urls.self} | ({"Preference-Applied": f"wait={wait_s:.0f}"} if wait_s else {})
    return Reply(response, 200 if ended else 202, headers)


def wait_for_end(app_context: AppContext, job_id: str, wait_s: float) -> bool:
    """Wait up to `wait_s` seconds until a job is final, and return whether it is. No database session is open while it waits.

    Waiting uses one of the process's streams. If all are in use, it returns False at once.
    """
    deadline = time.monotonic() + wait_s
    try:
        subscription = app_context.events.subscribe(
            lambda event: event.get("subject") == job_id or event["kind"] == "bulk.changed"
        )
    except Unavailable:
        return False
    try:
        while True:
            with app_context.store.read() as session:
                state = session.scalar(select(Job.state).where(Job.id == job_id))
            if state is None or JobState(state).is_final:
                return state is not None
            next_look = time.monotonic() + POLL_S
            while True:
                left = min(deadline, next_look) - time.monotonic()
                event = subscription.next(left) if left > 0 else None
                if event is CLOSE or time.monotonic() >= deadline:
                    return False
                if event is None or event["kind"] != "job.progress":
                    break
    finally:
        app_context.events.unsubscribe(subscription)
