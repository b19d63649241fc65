"""The list of jobs `/jobs`, one job `/jobs/{id}`, and the forms that cancel, retry and replay it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from flask import Response, redirect, request

from api.http.context import AppContext
from api.pages.job_cards import JobCard, Picture, job_cards, picture
from api.pages.jobs.filter import PERIODS, PageFilter, read_filter
from api.pages.live.render_cache import cached_per_tenant
from api.pages.registry import Pages
from api.pages.rendering import page
from imagefarm.auth import Caller, Scope
from imagefarm.errors import NotFound
from imagefarm.states import JobState
from imagefarm.store import Session, database_time, jobs
from imagefarm.store.attempts import AttemptRecord, attempts_of
from imagefarm.store.batches import batch_names
from imagefarm.store.events import events_of
from imagefarm.store.models import Image, Job
from imagefarm.tenants import tenant_names
from scheduler.assets.store import assets_of
from scheduler.batches import bulk_actions
from scheduler.queue.cancel import cancel_job
from scheduler.queue.replay import compare_with_original, replay_request
from scheduler.queue.submit import submit_job
from scheduler.queue.workers import worker_names

pages = Pages("pages_jobs")

ROWS = 40
NEW_COUNTED = 50
MAX_CHOICES = 60
"""Tenants, workers and batches that the filter lists by name."""
MAX_EVENTS = 200
RECIPE_ORDER = (
    "model",
    "steps",
    "guidance",
    "sampler",
    "seed",
    "negative_prompt",
    "strength",
    "init_image",
    "loras",
)


@dataclass(frozen=True, slots=True)
class JobsView:
    """A page of the list. `fresh` counts the jobs newer than its first row; `again` is the URL from which it refreshes itself."""

    filter: PageFilter
    jobs: tuple[JobCard, ...]
    older: str | None
    fresh: int
    again: str
    models: tuple[str, ...]
    states: tuple[JobState, ...]
    periods: tuple[str, ...]
    is_admin: bool
    may_cancel: bool
    may_retry: bool
    tenants: tuple[tuple[str, str], ...]
    workers: tuple[str, ...]
    batches: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class EventView:
    """One audited event. `seq` is its position in the chain, None until it is sealed."""

    at: float
    kind: str
    data: str
    seq: int | None


@dataclass(frozen=True, slots=True)
class Span:
    """A phase of the job and its duration in seconds. `start` and `width` are percent of the whole."""

    name: str
    seconds: float
    start: float
    width: float


@dataclass(frozen=True, slots=True)
class Replayed:
    """The comparison of a replay with its original job. The worst image gives the verdict."""

    of: str
    verdict: str
    psnr_db: float | None
    differs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PictureView:
    """One image with its audit record as text."""

    picture: Picture
    index: int
    format: str
    bytes: int
    sha256: str
    pixel_sha256: str
    ms: float
    audit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """The data of the job page."""

    job: JobCard
    recipe: tuple[tuple[str, str], ...]
    recipe_hash: str
    negative_prompt: str
    seed: str
    labels: tuple[tuple[str, str], ...]
    error_code: str | None
    error_detail: str | None
    cost_s: float
    actual_s: float | None
    pictures: tuple[PictureView, ...]
    attempts: tuple[AttemptRecord, ...]
    events: tuple[EventView, ...]
    spent: tuple[Span, ...]
    replayed: Replayed | None
    assets: tuple[str, ...]
    shows_tenant: bool
    url: str


@pages.get("/jobs", scope=Scope.READ)
@cached_per_tenant
def jobs_page(app_context: AppContext, caller: Caller) -> Response:
    """List jobs that match the filter in the URL."""
    asked = read_filter(request.args)
    with app_context.store.read() as session:
        wanted = asked.wanted(caller, database_time(session))
        # an id followed by "~" sorts just after the id, so the page begins with the job `upto` itself
        found = jobs.list_jobs(session, wanted, before=asked.before or (asked.upto and asked.upto + "~") or None, limit=ROWS)
        first = found.jobs[0].id if found.jobs else ""
        steady = replace(asked, upto="" if asked.before else asked.upto or first)
        tenants = tuple(tenant_names(session, MAX_CHOICES)) if caller.is_farm_admin else ()
        view = JobsView(
            filter=asked,
            jobs=job_cards(session, app_context, found.jobs),
            older=f"/jobs{replace(asked, upto='', before=found.next_before).query}" if found.next_before else None,
            fresh=jobs.count_newer(session, wanted, asked.upto, NEW_COUNTED) if asked.upto else 0,
            again=f"/jobs{steady.query}",
            models=tuple(app_context.catalogue.names()),
            states=tuple(JobState),
            periods=tuple(PERIODS),
            is_admin=caller.is_farm_admin,
            may_cancel=any(state in bulk_actions.CANCELLABLE for state in asked.states),
            may_retry=any(state in bulk_actions.RETRYABLE for state in asked.states),
            tenants=tenants if len(tenants) > 1 else (),
            workers=tuple(worker_names(session, MAX_CHOICES)),
            batches=tuple(batch_names(session, caller.tenant_filter, MAX_CHOICES)),
        )
    return page("jobs/jobs.html", view)


@pages.get("/jobs/<job_id>", scope=Scope.READ)
def job_page(app_context: AppContext, caller: Caller, job_id: str) -> Response:
    """Show one job."""
    with app_context.store.read() as session:
        view = _job_view(session, app_context, caller, jobs.visible_job(session, job_id, caller.tenant_filter))
    return page("jobs/job.html", view)


@pages.get("/jobs/<job_id>/preview.webp", scope=Scope.READ)
def preview(app_context: AppContext, caller: Caller, job_id: str) -> Response:
    """Return the preview of an image that is being rendered, or 204 without one: the job may end while the page asks."""
    given = request.args.get("index", "0")
    index = int(given[:4]) if given.isdecimal() else 0
    try:
        with app_context.store.read() as session:
            running = jobs.visible_job(session, job_id, caller.tenant_filter).state == JobState.RUNNING
    except NotFound:
        running = False
    data = app_context.progress.preview(job_id, index) if running else None
    if data is None:
        return Response(status=204)
    return Response(data, content_type="image/webp", headers={"Cache-Control": "no-store"})


@pages.post("/jobs/<job_id>/cancel", scope=Scope.SUBMIT)
def cancel_form(app_context: AppContext, caller: Caller, job_id: str) -> Any:
    """Cancel a job, and return to its page."""
    cancel_job(app_context.store, job_id, caller.tenant_filter, by=caller.name)
    return redirect(f"/jobs/{job_id}", 303)


@pages.post("/jobs/<job_id>/retry", scope=Scope.SUBMIT)
def retry_form(app_context: AppContext, caller: Caller, job_id: str) -> Any:
    """Retry a failed or cancelled job, and return to its page."""
    bulk_actions.retry_job(app_context, caller, job_id)
    return redirect(f"/jobs/{job_id}", 303)


@pages.post("/jobs/<job_id>/replay", scope=Scope.SUBMIT)
def replay_form(app_context: AppContext, caller: Caller, job_id: str) -> Any:
    """Replay a job's recipe, and go to the new job."""
    with app_context.store.read() as session:
        asked = replay_request(jobs.visible_job(session, job_id, caller.tenant_filter))
    return redirect(f"/jobs/{submit_job(app_context, caller, asked).id}", 303)


def _job_view(session: Session, app_context: AppContext, caller: Caller, job: Job) -> JobView:
    attempts = attempts_of(session, job.id)
    images = jobs.rendered_images(session, job.id)
    return JobView(
        job=job_cards(session, app_context, [job])[0],
        recipe=_recipe_rows(job.recipe),
        recipe_hash=job.recipe_hash,
        negative_prompt=str(job.recipe.get("negative_prompt") or ""),
        seed=str(job.recipe["seed"]),
        labels=tuple(sorted((str(name), str(value)) for name, value in job.labels.items())),
        error_code=job.error_code,
        error_detail=job.error_detail,
        cost_s=job.cost_s,
        actual_s=job.actual_s,
        pictures=tuple(_picture_view(image) for image in images),
        attempts=tuple(attempts),
        events=tuple(
            EventView(row.at, row.kind, pretty(row.data, indent=None), row.seq) for row in events_of(session, job.id, MAX_EVENTS)
        ),
        spent=_spent(job, attempts[0] if attempts else None, images),
        replayed=_replayed(session, app_context, caller, job),
        shows_tenant=caller.is_farm_admin,
        assets=tuple(sorted(assets_of(job.recipe))),
        url=request.host_url.rstrip("/"),
    )


def _spent(job: Job, last: AttemptRecord | None, images: Sequence[Image]) -> tuple[Span, ...]:
    """The phases of a succeeded job with their times, from its last attempt and the audit records of its images."""
    if job.state != JobState.SUCCEEDED or job.finished_at is None or last is None or not images:
        return ()
    whole = max(job.finished_at - last.claimed_at, 0.0)

    def told(*path: str) -> float:
        total = 0.0
        for image in images:
            value: Any = image.audit
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            total += value if isinstance(value, int | float) else 0.0
        return total / 1000

    parts = [("text", told("encode_ms")), ("steps", told("denoise_ms")), ("decoding", told("decode_ms"))]
    parts.append(("file", told("timings_ms", "encode") + told("timings_ms", "store")))
    known = sum(seconds for _, seconds in parts)
    if known > whole:  # images are written while the device renders, so the phases may overlap
        parts = [(name, seconds * whole / known) for name, seconds in parts]
    parts = [("waiting", max(last.claimed_at - job.created_at, 0.0)), ("loading and sharing", max(whole - known, 0.0)), *parts]
    length = sum(seconds for _, seconds in parts) or 1.0
    spans, start = [], 0.0
    for name, seconds in parts:
        if (width := 100 * seconds / length) >= 0.1:
            spans.append(Span(name, round(seconds, 4), round(start, 2), round(width, 2)))
            start += width
    return tuple(spans)


def _replayed(session: Session, app_context: AppContext, caller: Caller, job: Job) -> Replayed | None:
    if job.state != JobState.SUCCEEDED:
        return None
    found = compare_with_original(session, app_context.outputs, job, caller.tenant_filter, decode_slots=app_context.decode_slots)
    if found is None:
        return None
    least = min((one.psnr_db for one in found.images if one.psnr_db is not None), default=None)
    differs = tuple(dict.fromkeys(words for one in found.images for words in one.differs))
    return Replayed(found.original_id, found.verdict, least, differs)


def _picture_view(image: Image) -> PictureView:
    return PictureView(
        picture(image),
        image.index,
        image.format,
        image.bytes,
        image.sha256,
        image.pixel_sha256,
        image.ms,
        pretty(image.audit),
    )


def _recipe_rows(recipe: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """The recipe's fields as text, the most important ones first. Empty fields are left out."""
    names = [name for name in RECIPE_ORDER if name in recipe]
    names += [name for name in recipe if name not in {*RECIPE_ORDER, "prompt", "width", "height"}]
    return tuple(
        (name, value if isinstance(value, str) else pretty(value, indent=None))
        for name, value in ((name, recipe[name]) for name in names)
        if value not in (None, [], "")
    )


def pretty(value: object, indent: int | None = 2) -> str:
    """Format a value as JSON for people."""
    return json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=True)
