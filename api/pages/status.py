"""The status page `/`: the farm in a word, its workers and lanes, and the newest jobs."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Blueprint, Response, current_app, request

from api.auth import authenticate, require
from api.context import current_farm
from api.pages.farm_view import FarmView, RedisPulse, farm_view
from api.pages.job_cards import JobCard, job_cards
from api.pages.rendering import page
from imagefarm.auth import Scope
from imagefarm.states import JobState
from imagefarm.store import jobs
from imagefarm.store.models import Job

pages = Blueprint("pages_status", __name__)

OPEN_SHOWN = 6
FINISHED_SHOWN = 12
PULSE = "imagefarm.pages.pulse"


@dataclass(frozen=True, slots=True)
class StatusView:
    """What the page shows."""

    farm: FarmView
    current: tuple[JobCard, ...]
    finished: tuple[JobCard, ...]
    more_current: int
    example_prompt: str
    url: str


@pages.get("/")
def status_page() -> Response:
    """Show how the farm is."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.READ)
    beats = redis_pulse().beats()
    with farm.store.read() as session:

        def newest(limit: int, *states: JobState) -> list[Job]:
            wanted = jobs.JobFilter(tenant_id=caller.tenant_filter, states=states)
            return jobs.list_jobs(session, wanted, before=None, limit=limit).jobs if limit else []

        running = newest(OPEN_SHOWN, JobState.RUNNING)
        current = running + newest(OPEN_SHOWN - len(running), JobState.QUEUED)
        whole = farm_view(session, farm, caller, redis_beats=beats)
        view = StatusView(
            farm=whole,
            current=job_cards(session, farm, current),
            finished=job_cards(session, farm, newest(FINISHED_SHOWN, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)),
            more_current=max(0, whole.queued + whole.running - len(current)),
            example_prompt="a red mug on a white background",
            url=request.host_url.rstrip("/"),
        )
    return page("status.html", view)


def redis_pulse() -> RedisPulse:
    """The pulse of this process."""
    pulse = current_app.extensions.get(PULSE)
    if pulse is None:
        pulse = current_app.extensions.setdefault(PULSE, RedisPulse(current_farm().redis))
    return pulse  # type: ignore[no-any-return]
