"""The studio `/studio`: write a prompt, submit it and watch the image being rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Response, redirect, request
from pydantic import ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from api.http.context import AppContext
from api.http.field_errors import field_errors
from api.http.routes import too_large
from api.pages.i18n import language
from api.pages.registry import Pages
from api.pages.rendering import page
from api.pages.studio.form import (
    KindChoice,
    Size,
    counts_of,
    from_recipe,
    kinds_of,
    larger_size,
    loras_of,
    request_of,
    sizes_of,
    typed,
)
from api.pages.studio.gallery import Gallery, Part, gallery
from imagefarm.auth import Caller, Scope
from imagefarm.errors import Conflict, FieldError, InvalidRequest, RequestError, UnknownModel
from imagefarm.ids import is_id
from imagefarm.model_entry import ModelEntry
from imagefarm.prompts.enhance import Suggestion, enhance, joined
from imagefarm.recipe import MAX_PROMPT_CHARS, JobRequest
from imagefarm.store import Session
from imagefarm.store.jobs import visible_job
from imagefarm.text import check_text
from scheduler.assets.store import store_picture
from scheduler.metrics.model_use import read_model_use
from scheduler.queue.submit import submit_job

pages = Pages("pages_studio")

VARIATIONS = 4
UPSCALED = "lanczos:2"
"""The upscaler and factor of the button "Upscale"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A model to choose, and the reason if it cannot be used."""

    name: str
    title: str
    state: str
    served: bool

    @property
    def hindrance(self) -> str:
        if self.state in {"missing", "invalid"}:
            return self.state
        return "" if self.served else "no worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioView:
    """The form and the gallery. `fields` are the form's values, `errors` their errors."""

    models: tuple[ModelChoice, ...]
    entry: ModelEntry
    sizes: tuple[Size, ...]
    counts: tuple[int, ...]
    kinds: tuple[KindChoice, ...]
    loras: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    suggestion: Suggestion | None
    variant: int
    errors: tuple[FieldError, ...]
    refusal: str
    gallery: Gallery
    submitted: str
    max_prompt: int = MAX_PROMPT_CHARS


@pages.get("/studio", scope=Scope.READ)
def studio_page(app_context: AppContext, caller: Caller) -> Response:
    """Show the form, filled from the job `?from=JOB` and from other query parameters, and the gallery."""
    fields = typed(request.args)
    with app_context.store.read() as session:
        if origin := request.args.get("from"):
            job = visible_job(session, origin, caller.tenant_filter)
            given = {name: value for name, value in fields.items() if value}
            fields = (
                from_recipe(job.recipe, job.count)
                | ({} if "seed" in request.args or "keep" in request.args else {"seed": ""})
                | given
            )
        return page("studio/studio.html", _view(session, app_context, caller, fields, submitted=request.args.get("job", "")))


@pages.post("/studio", scope=Scope.SUBMIT)
def studio_form(app_context: AppContext, caller: Caller) -> Any:
    """Submit the form, or a job again with the change that its field `as` names. Errors are shown beside the fields."""
    request.max_content_length = app_context.settings.max_asset_bytes + app_context.settings.max_body_bytes
    fields = typed({})
    try:
        fields = (
            _asked_again(app_context, caller)
            if request.form.get("again")
            else _with_init_image(app_context, caller, typed(request.form))
        )
        entry = app_context.catalogue.get(fields["model"] or app_context.catalogue.default)
        job_id = submit_job(app_context, caller, request_of(fields, entry)).id
    except RequestEntityTooLarge:
        return _refused(app_context, caller, fields, too_large())
    except ValidationError as error:
        return _refused(app_context, caller, fields, InvalidRequest(field_errors(error, JobRequest, whole="form")))
    except RequestError as error:
        return _refused(app_context, caller, fields | typed(request.form), error)
    kept = f"&seed={fields['seed']}&keep=on" if fields["keep"] else ""
    kind = f"&kind={fields['kind']}" if any(one.name == fields["kind"] for one in kinds_of(entry, "en")) else ""
    return redirect(f"/studio?from={job_id}&job={job_id}{kind}{kept}", 303)


@pages.post("/studio/suggest", scope=Scope.SUBMIT)
def suggestion_form(app_context: AppContext, caller: Caller) -> Response:
    """Suggest additions to the prompt. The script gets only the fragment, a form without it the whole page; `add` applies one."""
    fields = _with_init_image(app_context, caller, typed(request.form))
    variant = int(request.form.get("variant", "0").strip()[:4]) if request.form.get("variant", "").isdecimal() else 0
    suggestion = _suggestion(fields, variant)
    if request.headers.get("HX-Request"):
        return page("studio/suggestion.html", suggestion, variant=variant)
    if suggestion is not None and (slot := request.form.get("add")):
        taken = [one.text for one in suggestion.additions if slot in {one.slot, "all"}]
        fields["prompt"] = joined(fields["prompt"], *taken)
        suggestion = _suggestion(fields, variant)
    with app_context.store.read() as session:
        return page("studio/studio.html", _view(session, app_context, caller, fields, suggestion=suggestion, variant=variant))


@pages.post("/studio/init-image", scope=Scope.SUBMIT)
def init_image_form(app_context: AppContext, caller: Caller) -> Response:
    """Store an uploaded image to start from, and return the form's fragment that shows it."""
    request.max_content_length = app_context.settings.max_asset_bytes + app_context.settings.max_body_bytes
    fields = typed({})
    refusal = ""
    try:
        fields = typed(request.form) | {"init_image": ""}
        fields = _with_init_image(app_context, caller, typed(request.form))
    except RequestEntityTooLarge:
        refusal = too_large().detail
    except InvalidRequest as error:
        refusal = "; ".join(f"{one.detail} – {one.remedy}" for one in error.errors)
    except RequestError as error:
        refusal = error.detail
    may_begin = (
        "init_image"
        in app_context.catalogue.by_alias.get(fields["model"], app_context.catalogue.get(app_context.catalogue.default)).features
    )
    return page("studio/init_image.html", tuple(fields.items()), may_begin=may_begin, refusal=refusal)


def _with_init_image(app_context: AppContext, caller: Caller, fields: dict[str, str]) -> dict[str, str]:
    """The form's fields with an uploaded image stored as an asset, or without any image if the form says so."""
    if request.form.get("no_init_image"):
        return fields | {"init_image": "", "strength": ""}
    file = request.files.get("init_image_file")
    if file is None or not file.filename:
        return fields
    data = file.read(app_context.settings.max_asset_bytes + 1)
    asset, _ = store_picture(
        app_context.store,
        app_context.outputs,
        app_context.settings,
        data,
        name=file.filename,
        tenant_id=caller.tenant_id,
        decode_slots=app_context.decode_slots,
    )
    return fields | {"init_image": asset.id}


def _asked_again(app_context: AppContext, caller: Caller) -> dict[str, str]:
    """The fields of the job that is submitted again, with the change that the button names."""
    with app_context.store.read() as session:
        job = visible_job(session, request.form["again"], caller.tenant_filter)
    change, seed = request.form.get("as", ""), request.form.get("seed", "").strip()
    same_seed = {"count": "1", "seed": seed or str(job.recipe["seed"])}
    fields = from_recipe(job.recipe, job.count)
    if change == "variations":
        return fields | {"count": str(VARIATIONS), "seed": ""}
    if change == "upscale":
        return fields | same_seed | {"upscale": UPSCALED}
    if change == "larger":
        larger = larger_size(app_context.catalogue.get(job.model), int(job.recipe["width"]), int(job.recipe["height"]))
        if larger is None:
            raise Conflict(f"model {job.model} has no larger size of this shape; upscale the picture instead")
        return fields | same_seed | {"size": larger.value}
    raise InvalidRequest([FieldError(field="as", detail="is not a known change", remedy="use variations, larger or upscale")])


def _suggestion(fields: Mapping[str, str], variant: int) -> Suggestion | None:
    prompt = fields["prompt"]
    try:
        check_text(prompt)
    except ValueError:
        return None  # submitting the form reports it
    if not prompt or len(prompt) > MAX_PROMPT_CHARS:
        return None
    return enhance(prompt, kind=fields["kind"], variant=variant)


def _refused(app_context: AppContext, caller: Caller, fields: dict[str, str], error: RequestError) -> Response:
    errors = tuple(error.errors) if isinstance(error, InvalidRequest) else ()
    with app_context.store.read() as session:
        view = _view(session, app_context, caller, fields, errors=errors, refusal="" if errors else error.detail)
    return page("studio/studio.html", view, error.status)


def _view(
    session: Session,
    app_context: AppContext,
    caller: Caller,
    fields: Mapping[str, str],
    *,
    errors: tuple[FieldError, ...] = (),
    refusal: str = "",
    submitted: str = "",
    suggestion: Suggestion | None = None,
    variant: int = 0,
) -> StudioView:
    try:
        entry = app_context.catalogue.get(fields["model"] or app_context.catalogue.default)
    except UnknownModel:
        entry = app_context.catalogue.get(app_context.catalogue.default)
    return StudioView(
        models=_choices(session, app_context),
        entry=entry,
        sizes=sizes_of(entry),
        counts=counts_of(entry),
        kinds=kinds_of(entry, language()),
        loras=loras_of(app_context.catalogue, entry),
        fields=tuple(fields.items()),
        suggestion=suggestion or _suggestion(fields, variant),
        variant=variant,
        errors=errors,
        refusal=refusal,
        gallery=gallery(session, app_context, caller, _part(), request.host_url.rstrip("/")),
        submitted=submitted,
    )


def _part() -> Part:
    """The range of the gallery in the query string. Raises InvalidRequest."""
    given = {name: request.args.get(name, "") for name in ("before", "down_to")}
    wrong = [
        FieldError(field=name, detail="is not the id of a job", remedy="leave it out to see the newest")
        for name, value in given.items()
        if value and not is_id(value, "job")
    ]
    if wrong:
        raise InvalidRequest(wrong)
    return Part(**given)


def _choices(session: Session, app_context: AppContext) -> tuple[ModelChoice, ...]:
    entries = app_context.catalogue.entries.values()
    use = read_model_use(session, [entry.name for entry in entries])
    choices = [
        ModelChoice(name=entry.name, title=entry.title, state=use[entry.name].state, served=use[entry.name].workers > 0)
        for entry in entries
    ]
    return tuple(sorted(choices, key=lambda choice: bool(choice.hindrance)))
