"""The list of batches with the form `/batches`, one batch `/batches/{id}` with its contact sheet, and its actions."""

from __future__ import annotations

import io
import json
from base64 import b64decode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from flask import Response, redirect, request
from pydantic import ValidationError

from api.http.context import AppContext
from api.http.field_errors import field_errors
from api.http.links import base_url
from api.pages.batches.table_preview import Preview, preview
from api.pages.batches.view import BatchCard, Sheet, batch_cards, sheet
from api.pages.live.render_cache import cached_per_tenant
from api.pages.registry import Pages
from api.pages.rendering import page
from api.v1.schemas.batch_parameters import BatchParameters, make_options
from api.v1.schemas.batches import BatchResponse, batch_responses, dry_run_response
from api.v1.schemas.finals import FinalsBody
from imagefarm.auth import Caller, Scope
from imagefarm.errors import Conflict, FieldError, InvalidRequest, NotFound, RequestError
from imagefarm.ids import is_id
from imagefarm.store import Session, batches
from scheduler.batches.actions import BatchAction, act_on_batch
from scheduler.batches.progress import FailureGroup, read_progress
from scheduler.batches.review.sheet_cells import cells
from scheduler.batches.submit import BatchRequest, launch_batch, launch_finals, quote_batch
from scheduler.batches.table.column_map import clean_map
from scheduler.batches.table.incremental import earlier_batch, inherit
from scheduler.batches.table.options import BatchOptions
from scheduler.batches.table.table_reader import TableFile, is_json_name
from scheduler.batches.table.template import MAX_TEMPLATE_CHARS

pages = Pages("pages_batches")

LISTED = 30
FIELDS = (
    "name", "template", "table", "model", "canary", "variants", "on_error", "count", "steps", "seed", "name_pattern", "labels",
    "update_of", "charset",
)  # fmt: skip
MAPPED = "map."
"""Prefix of the form fields that assign a meaning to a column."""
PREVIEW_CHARS = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchesView:
    """The list and the form. `quote` is the result of a dry run; `errors` are the errors of the table."""

    batches: tuple[BatchCard, ...]
    older: str | None
    fields: tuple[tuple[str, str], ...]
    models: tuple[str, ...]
    mapping: tuple[tuple[str, str], ...]
    update_name: str
    preview: Preview
    quote: BatchResponse | None
    errors: tuple[FieldError, ...]
    refusal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchView:
    """One batch. `left_s` is the expected number of seconds to its end, None when no job finishes."""

    batch: BatchCard
    response: BatchResponse
    finals: tuple[tuple[str, str], ...]
    drafts_name: str
    errors: tuple[FailureGroup, ...]
    bad_rows: tuple[tuple[tuple[str, str], ...], ...]
    rate: int
    left_s: float | None
    sheet: Sheet
    final_size: int


@pages.get("/batches", scope=Scope.READ)
@cached_per_tenant
def batches_page(app_context: AppContext, caller: Caller) -> Response:
    """List batches, with the form for a new one."""
    fields = {"update_of": request.args.get("update_of", "")[:255]}
    return page("batches/batches.html", _batches_view(app_context, caller, fields))


@pages.post("/batches/preview", scope=Scope.SUBMIT)
def preview_form(app_context: AppContext, caller: Caller) -> Response:
    """Show the table's columns and the first prompts of a batch that is being written."""
    head = request.form.get("head", "")[:PREVIEW_CHARS]
    is_json = request.form.get("kind") == "json"
    with suppress(ValueError):
        data = b64decode(head, validate=True) if request.form.get("coding") == "base64" else head.encode("utf-8", "replace")
        return page("batches/batch_preview.html", _preview(app_context, caller, data, request.form, is_json=is_json))
    raise InvalidRequest([FieldError(field="head", detail="is not base64", remedy="send the table's first bytes in base64")])


@pages.post("/batches", scope=Scope.SUBMIT)
def batches_form(app_context: AppContext, caller: Caller) -> Any:
    """Quote or launch the table of the form. Errors are shown with the form."""
    request.max_content_length = app_context.settings.max_table_bytes
    fields = {name: request.form.get(name, "").strip() for name in FIELDS}
    try:
        batch_request = _batch_request(app_context, fields, dry_run=request.form.get("act") != "launch")
        if batch_request.options.dry_run:
            quote = dry_run_response(*quote_batch(app_context, caller, batch_request))
            return page("batches/batches.html", _batches_view(app_context, caller, fields, quote=quote))
        batch_id = launch_batch(app_context, caller, batch_request)
    except ValidationError as error:
        wrong = field_errors(error, BatchParameters, whole="form")
        return page("batches/batches.html", _batches_view(app_context, caller, fields, errors=tuple(wrong)), 422)
    except RequestError as error:
        wrong = error.errors if isinstance(error, InvalidRequest) else []
        view = _batches_view(app_context, caller, fields, errors=tuple(wrong), refusal=error.detail)
        return page("batches/batches.html", view, error.status)
    return redirect(f"/batches/{batch_id}", 303)


@pages.get("/batches/<batch_id>", scope=Scope.READ)
@cached_per_tenant
def batch_page(app_context: AppContext, caller: Caller, batch_id: str) -> Response:
    """Show one batch."""
    with app_context.store.read() as session:
        batch = batches.visible_batch(session, batch_id, caller.tenant_filter)
        card = batch_cards(session, [batch])[0]
        progress = read_progress(session, batch_id, card.open)
        view = BatchView(
            batch=card,
            response=batch_responses(session, [batch], base_url())[0],
            finals=tuple((one.id, one.name) for one in batches.list_batches(session, None, limit=10, drafts=batch_id)),
            drafts_name=batches.batch_name(session, batch.drafts),
            errors=tuple(progress.failures),
            bad_rows=tuple(tuple((str(k), "" if v is None else str(v)) for k, v in error.items()) for error in batch.errors[:20]),
            rate=progress.jobs_per_minute,
            left_s=progress.left_s,
            sheet=sheet(session, batch_id, ""),
            final_size=_final_size(session, app_context, batch_id),
        )
    return page("batches/batch.html", view)


@pages.get("/batches/<batch_id>/sheet", scope=Scope.READ)
def sheet_page(app_context: AppContext, caller: Caller, batch_id: str) -> Response:
    """Show a chunk of the contact sheet."""
    after = _after()
    with app_context.store.read() as session:
        batches.visible_batch(session, batch_id, caller.tenant_filter)
        view = sheet(session, batch_id, after)
    return page("batches/sheet.html", view)


@pages.get("/batches/<batch_id>/cells.json", scope=Scope.READ)
def cells_of_sheet(app_context: AppContext, caller: Caller, batch_id: str) -> Response:
    """Return a chunk of the contact sheet as JSON for the page's script."""
    after = _after()
    with app_context.store.read() as session:
        batches.visible_batch(session, batch_id, caller.tenant_filter)
        text = json.dumps(cells(session, batch_id, after), ensure_ascii=False, separators=(",", ":"))
    response = Response(text, content_type="application/json")
    response.add_etag()
    response.headers["Cache-Control"] = "private, no-cache"
    response.make_conditional(request)
    return response


@pages.post("/batches/<batch_id>/finals", scope=Scope.SUBMIT)
def finals_form(app_context: AppContext, caller: Caller, batch_id: str) -> Any:
    """Render the approved images as finals, and go to the new batch."""
    given = {name: value for name in ("width", "height", "steps", "name") if (value := request.form.get(name, "").strip())}
    try:
        body = FinalsBody.model_validate(given)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error, FinalsBody, whole="form")) from None
    finals_id, _ = launch_finals(app_context, caller, body.options(app_context.settings), batch_id=batch_id)
    return redirect(f"/batches/{finals_id}", 303)


@pages.post("/batches/<batch_id>/<action>", scope=Scope.SUBMIT)
def action_form(app_context: AppContext, caller: Caller, batch_id: str, action: str) -> Any:
    """Pause, resume, approve or cancel a batch or retry its failures, and return to it."""
    if action not in set(BatchAction):
        raise NotFound(f"a batch has no action {action[:40]!r}; use one of {', '.join(BatchAction)}")
    act_on_batch(app_context, caller, batch_id, BatchAction(action))
    return redirect(f"/batches/{batch_id}", 303)


def _after() -> str:
    """The id of the job after which the requested chunk begins; empty for the first chunk. Raises InvalidRequest."""
    after = request.args.get("after", "")
    if after and not is_id(after, "job"):
        raise InvalidRequest([FieldError(field="after", detail="is not the id of a job", remedy="leave it out")])
    return after


def _mapping() -> dict[str, str]:
    """The meaning of each renamed column, by column name, from the form."""
    given = request.form.items()
    return {name.removeprefix(MAPPED): value for name, value in given if name.startswith(MAPPED) and value}


def _final_size(session: Session, app_context: AppContext, batch_id: str) -> int:
    """The initial size in the form for finals: twice the draft's longer side in pixels, up to the model's limit."""
    first = batches.first_job(session, batch_id)
    if first is None:
        return 1024
    entry = app_context.catalogue.entries.get(first.model)
    longest = 2 * max(int(first.recipe["width"]), int(first.recipe["height"]))
    return longest if entry is None else min(longest, entry.limits.max_side)


def _batch_request(app_context: AppContext, fields: dict[str, str], *, dry_run: bool) -> BatchRequest:
    """The table of the form, a file or pasted text, with its options. Raises InvalidRequest, ValidationError."""
    given = {name: value for name, value in fields.items() if value and name != "table"}
    if mapping := _mapping():
        given["column_map"] = json.dumps(mapping)
    parameters = BatchParameters.model_validate(given | {"dry_run": dry_run})
    upload = request.files.get("file")
    name = (upload.filename or "") if upload else ""
    if not name and not fields["table"]:
        raise InvalidRequest([FieldError(field="table", detail="is missing", remedy="choose a file, or paste some rows")])
    stream = cast("BinaryIO", upload.stream) if upload and name else io.BytesIO(fields["table"].encode())
    table = TableFile(stream, app_context.settings.max_batch_rows, is_json_name(name))
    if not parameters.name and name:
        parameters = parameters.model_copy(update={"name": name[:255]})
    pictures = request.files.get("archive")
    archive = cast("BinaryIO", pictures.stream) if pictures and pictures.filename else None
    return BatchRequest(table, make_options(parameters), archive)


def _preview(app_context: AppContext, caller: Caller, head: bytes, form: Mapping[str, str], *, is_json: bool = False) -> Preview:
    """The beginning of a table as the form's batch would read it; what the form lacks comes from the batch that it updates."""
    given = BatchOptions(template=form.get("template", "")[:MAX_TEMPLATE_CHARS], charset=form.get("charset", "")[:20] or None)
    with suppress(InvalidRequest):  # it is still being typed
        given.variants = make_options(BatchParameters(variants=form.get("variants") or None)).variants
    options = given
    if (named := form.get("update_of", "")[:255]) and head.strip():
        set_fields = {name for name in ("template", "charset", "variants") if getattr(given, name)}
        with suppress(NotFound, Conflict, InvalidRequest), app_context.store.read() as session:
            said = given.model_copy()
            said.__pydantic_fields_set__ = set_fields
            options = inherit(said, earlier_batch(session, caller.tenant_id, named))
    return preview(head, options, given=given, is_json=is_json, mapping=clean_map(_mapping()))


def _batches_view(
    app_context: AppContext,
    caller: Caller,
    given: dict[str, str],
    *,
    quote: BatchResponse | None = None,
    errors: tuple[FieldError, ...] = (),
    refusal: str = "",
) -> BatchesView:
    before = request.args.get("before", "")
    if before and not is_id(before, "batch"):
        raise InvalidRequest([FieldError(field="before", detail="is not the id of a batch", remedy="leave it out")])
    fields = dict.fromkeys(FIELDS, "") | given
    mapping = _mapping() if request.method == "POST" else {}
    with app_context.store.read() as session:
        found = batches.list_batches(session, caller.tenant_filter, limit=LISTED + 1, before=before or None)
        cards = batch_cards(session, found[:LISTED])
        update_name = ""
        if fields["update_of"]:
            update_name = batches.batch_name(session, fields["update_of"]) or fields["update_of"]
    return BatchesView(
        batches=cards,
        older=f"/batches?before={found[LISTED - 1].id}" if len(found) > LISTED else None,
        fields=tuple(fields.items()),
        models=tuple(app_context.catalogue.names()),
        mapping=tuple(mapping.items()),
        update_name=update_name,
        preview=_preview(app_context, caller, fields["table"][:PREVIEW_CHARS].encode(), fields),
        quote=quote,
        errors=errors,
        refusal=refusal,
    )
