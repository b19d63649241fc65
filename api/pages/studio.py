"""The studio `/studio`: write what a picture shall show, and watch it appear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, redirect, request
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from api import jobs as api_jobs
from api.auth import authenticate, require
from api.context import Farm, current_farm
from api.field_errors import field_errors
from api.pages.job_cards import JobCard, job_cards
from api.pages.rendering import page
from api.pages.snippets import Snippets, snippets
from api.pages.studio_form import Size, counts_of, from_recipe, request_of, sizes_of, typed
from imagefarm.auth import Caller, Scope
from imagefarm.catalogue import ModelEntry
from imagefarm.errors import FieldError, InvalidRequest, RequestError, UnknownModel
from imagefarm.recipe import MAX_PROMPT_CHARS, JobRequest
from imagefarm.states import WorkerState
from imagefarm.store import jobs
from imagefarm.store.models import Model, Worker
from scheduler import admission

pages = Blueprint("pages_studio", __name__)

SHOWN = 24
LOOKED_AT = 120
"""Newest jobs among which those are found that did not come from a batch."""
VARIATIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A model to choose, and what hinders it."""

    name: str
    title: str
    state: str
    served: bool

    @property
    def hindrance(self) -> str:
        if self.state in {"missing", "invalid"}:
            return self.state
        return "" if self.served else "no worker"


@dataclass(frozen=True, slots=True)
class Making:
    """A job of the gallery and how to ask for it elsewhere."""

    job: JobCard
    code: Snippets


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioView:
    """The form and the gallery. `fields` are what the form holds, `errors` what was wrong with it."""

    models: tuple[ModelChoice, ...]
    entry: ModelEntry
    sizes: tuple[Size, ...]
    counts: tuple[int, ...]
    fields: tuple[tuple[str, str], ...]
    errors: tuple[FieldError, ...]
    refusal: str
    makings: tuple[Making, ...]
    submitted: str
    max_prompt: int = MAX_PROMPT_CHARS


@pages.get("/studio")
def studio_page() -> Response:
    """Show the form, filled from `?from=JOB` or from the address, and what was made here lately."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.READ)
    fields = typed(request.args)
    with farm.store.read() as session:
        if origin := request.args.get("from"):
            job = api_jobs.visible_job(session, caller, origin)
            given = {name: value for name, value in fields.items() if value}
            fields = (
                from_recipe(job.recipe, job.count)
                | ({} if "seed" in request.args or "keep" in request.args else {"seed": ""})
                | given
            )
        return page("studio.html", _view(session, farm, caller, fields, submitted=request.args.get("job", "")))


@pages.post("/studio")
def studio_form() -> Any:
    """Submit what the form says, or `variations` of a job; errors come back beside the fields."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.SUBMIT)
    fields = typed(request.form)
    try:
        if origin := request.form.get("variations"):
            with farm.store.read() as session:
                fields = from_recipe(api_jobs.visible_job(session, caller, origin).recipe, VARIATIONS) | {"seed": ""}
        entry = farm.catalogue.get(fields["model"] or farm.catalogue.default)
        job_id = _submit(farm, caller, request_of(fields, entry))
    except ValidationError as error:
        return _refused(farm, caller, fields, InvalidRequest(field_errors(error, JobRequest, whole="form")))
    except RequestError as error:
        return _refused(farm, caller, fields, error)
    kept = f"&seed={fields['seed']}&keep=on" if fields["keep"] else ""
    return redirect(f"/studio?from={job_id}&job={job_id}{kept}", 303)


def _submit(farm: Farm, caller: Caller, asked: JobRequest) -> str:
    with farm.store.write() as session:
        row = admission.prepare(farm.catalogue, asked, caller.tenant_id, costs=admission.learnt_costs(session))
        admission.submit(session, [row], farm.settings)
    farm.nudger.nudge(row["model"])
    return str(row["id"])


def _refused(farm: Farm, caller: Caller, fields: dict[str, str], error: RequestError) -> Response:
    errors = tuple(error.errors) if isinstance(error, InvalidRequest) else ()
    with farm.store.read() as session:
        view = _view(session, farm, caller, fields, errors=errors, refusal="" if errors else error.detail)
    return page("studio.html", view, error.status)


def _view(
    session: Session,
    farm: Farm,
    caller: Caller,
    fields: Mapping[str, str],
    *,
    errors: tuple[FieldError, ...] = (),
    refusal: str = "",
    submitted: str = "",
) -> StudioView:
    try:
        entry = farm.catalogue.get(fields["model"] or farm.catalogue.default)
    except UnknownModel:
        entry = farm.catalogue.get(farm.catalogue.default)
    newest = jobs.list_jobs(session, jobs.JobFilter(tenant_id=caller.tenant_id), before=None, limit=LOOKED_AT).jobs
    own = [job for job in newest if job.batch_id is None][:SHOWN]
    url = request.host_url.rstrip("/")
    return StudioView(
        models=_choices(session, farm),
        entry=entry,
        sizes=sizes_of(entry),
        counts=counts_of(entry),
        fields=tuple(fields.items()),
        errors=errors,
        refusal=refusal,
        makings=tuple(
            Making(card, snippets(url, job.recipe, job.count))
            for card, job in zip(job_cards(session, farm, own), own, strict=True)
        ),
        submitted=submitted,
    )


def _choices(session: Session, farm: Farm) -> tuple[ModelChoice, ...]:
    learnt = dict(session.execute(select(Model.name, Model.state)).all())
    serves = session.scalars(select(Worker.serves).where(Worker.state != WorkerState.GONE)).all()
    choices = [
        ModelChoice(
            name=entry.name,
            title=entry.title,
            state=learnt.get(entry.name, "unknown"),
            served=any(entry.name in one for one in serves),
        )
        for entry in farm.catalogue.entries.values()
    ]
    return tuple(sorted(choices, key=lambda choice: bool(choice.hindrance)))
