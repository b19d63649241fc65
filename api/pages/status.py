"""The status page `/`: the farm's state, the newest images, waiting jobs, workers and lanes."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Response, request

from api.http.context import AppContext
from api.pages.job_cards import JobCard, job_cards
from api.pages.live.render_cache import cached_per_tenant
from api.pages.registry import Pages
from api.pages.rendering import page
from imagefarm.auth import Caller, Scope
from imagefarm.states import JobState
from imagefarm.store import database_time, jobs
from imagefarm.store.job_access_paths import JobFilter
from imagefarm.store.models import Job
from scheduler.metrics.farm_view import FarmView
from scheduler.metrics.read_farm import read_farm

pages = Pages("pages_status")

WALL = 12
"""Images shown, including those that are being rendered."""
MAKING, WAITING, FAILED = 6, 5, 3
LATELY_S = 3600.0
"""Age in seconds up to which failed jobs are shown."""


@dataclass(frozen=True, slots=True)
class StatusView:
    """The data of the page: running and finished jobs with images, then waiting jobs, then recently failed jobs."""

    farm: FarmView
    wall: tuple[JobCard, ...]
    waiting: tuple[JobCard, ...]
    failed: tuple[JobCard, ...]
    more: int
    example_prompt: str
    url: str


@pages.get("/", scope=Scope.READ)
@cached_per_tenant
def status_page(app_context: AppContext, caller: Caller) -> Response:
    """Show the farm's state."""
    redis_up = app_context.redis_health.is_up()
    with app_context.store.read() as session:

        def newest(limit: int, *states: JobState, since: float | None = None) -> list[Job]:
            wanted = JobFilter(tenant_id=caller.tenant_filter, states=states, created_after=since)
            return jobs.list_jobs(session, wanted, before=None, limit=limit).jobs if limit else []

        running = newest(MAKING, JobState.RUNNING)
        made = newest(WALL - len(running), JobState.SUCCEEDED)
        waiting = newest(WAITING, JobState.QUEUED)
        failed = newest(FAILED, JobState.FAILED, since=database_time(session) - LATELY_S)
        whole = read_farm(session, app_context.catalogue, caller, redis_is_up=redis_up, read_steps=app_context.progress.read)
        view = StatusView(
            farm=whole,
            wall=job_cards(session, app_context, [*running, *made]),
            waiting=job_cards(session, app_context, waiting),
            failed=job_cards(session, app_context, failed),
            more=max(0, whole.queued + whole.running - len(waiting) - len(running)),
            example_prompt="a red mug on a white background",
            url=request.host_url.rstrip("/"),
        )
    return page("status.html", view)
