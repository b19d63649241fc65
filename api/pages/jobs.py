"""The list of jobs `/jobs`, one job `/jobs/{id}`, and the forms that cancel it or run it again."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from flask import Blueprint, Response, redirect, request
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from api import jobs as api_jobs
from api.auth import authenticate, require
from api.context import Farm, current_farm
from api.pages.job_cards import JobCard, Picture, job_cards, picture
from api.pages.job_filter import PERIODS, PageFilter, read_filter
from api.pages.rendering import page
from imagefarm.auth import Scope
from imagefarm.errors import NotFound
from imagefarm.states import JobState
from imagefarm.store import db_now, jobs
from imagefarm.store.models import Attempt, Event, Image, Job, Worker

pages = Blueprint("pages_jobs", __name__)

ROWS = 40
NEW_COUNTED = 50
MOST_EVENTS = 200
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
    """A page of the list. `fresh` jobs are newer than its first row; `again` is its address when it refreshes itself."""

    filter: PageFilter
    jobs: tuple[JobCard, ...]
    older: str | None
    fresh: int
    again: str
    models: tuple[str, ...]
    states: tuple[JobState, ...]
    periods: tuple[str, ...]
    is_admin: bool


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One claim of the job and how it ended."""

    number: int
    worker: str
    claimed_at: float
    ended_at: float | None
    outcome: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class EventView:
    """One audited change. `seq` is its place in the chain, None until it is sealed."""

    at: float
    kind: str
    data: str
    seq: int | None


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
    """All that is known of a job."""

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
    attempts: tuple[AttemptView, ...]
    events: tuple[EventView, ...]
    url: str


@pages.get("/jobs")
def jobs_page() -> Response:
    """List jobs; the address is the filter."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.READ)
    asked = read_filter(request.args)
    with farm.store.read() as session:
        wanted = asked.wanted(caller, session.scalar(select(db_now())) or 0.0)
        # an id followed by anything sorts behind the id itself: so `upto` is the first row
        found = jobs.list_jobs(session, wanted, before=asked.before or (asked.upto and asked.upto + "~") or None, limit=ROWS)
        newest = jobs.list_jobs(session, wanted, before=None, limit=NEW_COUNTED).jobs if asked.upto else []
        first = found.jobs[0].id if found.jobs else ""
        steady = replace(asked, upto="" if asked.before else asked.upto or first)
        view = JobsView(
            filter=asked,
            jobs=job_cards(session, farm, found.jobs),
            older=f"/jobs{replace(asked, upto='', before=found.next_before).query}" if found.next_before else None,
            fresh=sum(job.id > asked.upto for job in newest),
            again=f"/jobs{steady.query}",
            models=tuple(farm.catalogue.names()),
            states=tuple(JobState),
            periods=tuple(PERIODS),
            is_admin=caller.is_admin,
        )
    return page("jobs.html", view)


@pages.get("/jobs/<job_id>")
def job_page(job_id: str) -> Response:
    """Show one job."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.READ)
    with farm.store.read() as session:
        view = _job_view(session, farm, api_jobs.visible_job(session, caller, job_id))
    return page("job.html", view)


@pages.get("/jobs/<job_id>/preview.webp")
def preview(job_id: str) -> Response:
    """A look at an image in the making, or nothing: the job may end while a page asks, which is no error to show anybody."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.READ)
    given = request.args.get("index", "0")
    try:
        return api_jobs.get_preview(farm, caller, job_id, api_jobs.PreviewQuery(index=int(given) if given.isdecimal() else 0))
    except (NotFound, ValidationError):
        return Response(status=204)


@pages.post("/jobs/<job_id>/cancel")
def cancel_form(job_id: str) -> Any:
    """Cancel a job, and go back to it."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.SUBMIT)
    api_jobs.cancel(farm, caller, job_id)
    return redirect(f"/jobs/{job_id}", 303)


@pages.post("/jobs/<job_id>/retry")
def retry_form(job_id: str) -> Any:
    """Run a failed or cancelled job again, and go back to it."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.SUBMIT)
    api_jobs.retry(farm, caller, job_id)
    return redirect(f"/jobs/{job_id}", 303)


def _job_view(session: Session, farm: Farm, job: Job) -> JobView:
    names = dict(
        session.execute(
            select(Worker.id, Worker.name).join(Attempt, Attempt.owner == Worker.id).where(Attempt.job_id == job.id)
        ).all()
    )
    attempts = session.scalars(select(Attempt).where(Attempt.job_id == job.id).order_by(Attempt.attempt.desc())).all()
    events = session.scalars(select(Event).where(Event.subject == job.id).order_by(Event.id).limit(MOST_EVENTS)).all()
    images = session.scalars(select(Image).where(Image.job_id == job.id).order_by(Image.index)).all()
    return JobView(
        job=job_cards(session, farm, [job])[0],
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
        attempts=tuple(
            AttemptView(row.attempt, names.get(row.owner, row.owner), row.claimed_at, row.ended_at, row.outcome, row.reason)
            for row in attempts
        ),
        events=tuple(EventView(row.at, row.kind, pretty(row.data, indent=None), row.seq) for row in events),
        url=request.host_url.rstrip("/"),
    )


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
    """The recipe's fields as text, the ones people look for first; absent ones are left out."""
    names = [name for name in RECIPE_ORDER if name in recipe]
    names += [name for name in recipe if name not in {*RECIPE_ORDER, "prompt", "width", "height"}]
    return tuple(
        (name, value if isinstance(value, str) else pretty(value, indent=None))
        for name, value in ((name, recipe[name]) for name in names)
        if value not in (None, [], "")
    )


def pretty(value: object, indent: int | None = 2) -> str:
    """JSON for people to read."""
    return json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=True)
