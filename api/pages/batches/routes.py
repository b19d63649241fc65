"""Batches: the list with the form `/batches`, one batch `/batches/{id}` with its contact sheet, and its orders."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from flask import Blueprint, Response, redirect, request
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.http.auth import authenticate, require
from api.http.context import AppContext, current_app_context
from api.http.field_errors import field_errors
from api.pages.batches import contact_sheet
from api.pages.batches.table_preview import Preview, preview, rename
from api.pages.batches.view import BatchCard, Sheet, batch_cards, sheet
from api.pages.live.render_cache import cached_per_tenant
from api.pages.rendering import page
from api.v1.batches import routes as api_batches
from api.v1.batches.batch_request import BatchParameters, make_options
from api.v1.batches.picks import FinalsBody, make_batch_finals
from api.v1.batches.progress import FailureGroup, progress_of
from api.v1.batches.schemas import BatchResponse, batch_responses, dry_run_response
from api.v1.jobs.schemas import base_url
from imagefarm.auth import Caller, Scope
from imagefarm.errors import FieldError, InvalidRequest, NotFound, RequestError
from imagefarm.ids import is_id
from imagefarm.store.models import Batch, Job
from scheduler.batches.submit import BatchRequest, launch_batch, quote_batch
from scheduler.batches.table.table_reader import read_csv, read_json_lines

pages = Blueprint("pages_batches", __name__)

LISTED = 30
FIELDS = (
    "name", "template", "table", "model", "canary", "variants", "on_error", "count", "steps", "seed", "name_pattern", "labels",
    "update_of",
)  # fmt: skip
MAPPED = "map."
"""Fields of the form that say for what a column is taken begin so."""
PREVIEW_CHARS = 256 * 1024
ACTIONS: dict[str, Callable[[AppContext, Caller, str], BatchResponse]] = {
    "pause": api_batches.pause_batch,
    "resume": api_batches.resume_batch,
    "cancel": api_batches.cancel_batch,
    "retry-failed": api_batches.retry_failed_batch,
    "approve": api_batches.approve_batch,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchesView:
    """The list and the form. `quote` answers a dry run; `errors` say what was wrong with the table."""

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
    """One batch. `left_s` is the expected time to its end, None when nothing moves."""

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


@pages.get("/batches")
@cached_per_tenant
def batches_page() -> Response:
    """List batches, with the form for a new one."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.READ)
    fields = {"update_of": request.args.get("update_of", "")[:255]}
    return page("batches.html", _batches_view(app_context, caller, fields))


@pages.post("/batches/preview")
def preview_form() -> Response:
    """Show the table's columns and the first prompts of a batch that is being written."""
    app_context = current_app_context()
    require(authenticate(app_context), Scope.SUBMIT)
    head, template = request.form.get("head", "")[:PREVIEW_CHARS], request.form.get("template", "")
    shown = preview(head, template, json_lines=request.form.get("kind") == "json", mapping=_mapping())
    return page("batch_preview.html", shown)


@pages.post("/batches")
def batches_form() -> Any:
    """Quote a table, or launch it. What is wrong with it comes back with the form."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.SUBMIT)
    request.max_content_length = app_context.settings.max_table_bytes
    fields = {name: request.form.get(name, "").strip() for name in FIELDS}
    try:
        batch_request = _batch_request(app_context, fields, dry_run=request.form.get("act") != "launch")
        if batch_request.options.dry_run:
            quote = dry_run_response(*quote_batch(app_context, caller, batch_request))
            return page("batches.html", _batches_view(app_context, caller, fields, quote=quote))
        batch_id = launch_batch(app_context, caller, batch_request)
    except ValidationError as error:
        wrong = field_errors(error, BatchParameters, whole="form")
        return page("batches.html", _batches_view(app_context, caller, fields, errors=tuple(wrong)), 422)
    except RequestError as error:
        wrong = error.errors if isinstance(error, InvalidRequest) else []
        view = _batches_view(app_context, caller, fields, errors=tuple(wrong), refusal=error.detail)
        return page("batches.html", view, error.status)
    return redirect(f"/batches/{batch_id}", 303)


@pages.get("/batches/<batch_id>")
@cached_per_tenant
def batch_page(batch_id: str) -> Response:
    """Show one batch."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.READ)
    with app_context.store.read() as session:
        batch = api_batches.visible_batch(session, caller, batch_id)
        card = batch_cards(session, [batch])[0]
        progress = progress_of(session, batch_id, card.open)
        view = BatchView(
            batch=card,
            response=batch_responses(session, [batch], base_url())[0],
            finals=_finals_of(session, batch_id),
            drafts_name=_name_of(session, batch.drafts),
            errors=tuple(progress.failures),
            bad_rows=tuple(tuple((str(k), "" if v is None else str(v)) for k, v in error.items()) for error in batch.errors[:20]),
            rate=progress.jobs_per_minute,
            left_s=progress.left_s,
            sheet=sheet(session, batch_id, ""),
            final_size=_final_size(session, app_context, batch_id),
        )
    return page("batch.html", view)


@pages.get("/batches/<batch_id>/sheet")
def sheet_page(batch_id: str) -> Response:
    """Show a chunk of the contact sheet."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.READ)
    after = _after()
    with app_context.store.read() as session:
        api_batches.visible_batch(session, caller, batch_id)
        view = sheet(session, batch_id, after)
    return page("sheet.html", view)


@pages.get("/batches/<batch_id>/cells.json")
def cells_of_sheet(batch_id: str) -> Response:
    """A chunk of the contact sheet for the page's script."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.READ)
    after = _after()
    with app_context.store.read() as session:
        api_batches.visible_batch(session, caller, batch_id)
        text = json.dumps(contact_sheet.cells(session, batch_id, after), ensure_ascii=False, separators=(",", ":"))
    response = Response(text, content_type="application/json")
    response.add_etag()
    response.headers["Cache-Control"] = "private, no-cache"
    response.make_conditional(request)
    return response


@pages.post("/batches/<batch_id>/finals")
def finals_form(batch_id: str) -> Any:
    """Render the approved pictures finally, and go to the batch that does."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.SUBMIT)
    given = {name: value for name in ("width", "height", "steps", "name") if (value := request.form.get(name, "").strip())}
    try:
        body = FinalsBody.model_validate(given)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error, FinalsBody, whole="form")) from None
    reply = make_batch_finals(app_context, caller, batch_id, body)
    response = cast("BatchResponse", reply.response)
    return redirect(f"/batches/{response.id}", 303)


@pages.post("/batches/<batch_id>/<action>")
def action_form(batch_id: str, action: str) -> Any:
    """Pause, resume, approve, cancel a batch or run its failures again, and go back to it."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.SUBMIT)
    if action not in ACTIONS:
        raise NotFound(f"a batch has no action {action[:40]!r}; use one of {', '.join(ACTIONS)}")
    ACTIONS[action](app_context, caller, batch_id)
    return redirect(f"/batches/{batch_id}", 303)


def _after() -> str:
    """The job after which a chunk of a contact sheet begins. Raises InvalidRequest."""
    after = request.args.get("after", "")
    if after and not is_id(after, "job"):
        raise InvalidRequest([FieldError(field="after", detail="is not the id of a job", remedy="leave it out")])
    return after


def _mapping() -> dict[str, str]:
    """For what columns are taken, as the form says."""
    given = request.form.items()
    return {name.removeprefix(MAPPED): value for name, value in given if name.startswith(MAPPED) and value}


def _finals_of(session: Session, batch_id: str) -> tuple[tuple[str, str], ...]:
    rows = session.execute(select(Batch.id, Batch.name).where(Batch.drafts == batch_id).order_by(Batch.id.desc()).limit(10))
    return tuple((row.id, row.name) for row in rows)


def _final_size(session: Session, app_context: AppContext, batch_id: str) -> int:
    """What the form for finals begins with: twice the draft's longer side, if the model goes so far."""
    first = session.execute(select(Job.model, Job.recipe).where(Job.batch_id == batch_id).order_by(Job.id).limit(1)).first()
    if first is None:
        return 1024
    entry = app_context.catalogue.entries.get(first.model)
    longest = 2 * max(int(first.recipe["width"]), int(first.recipe["height"]))
    return longest if entry is None else min(longest, entry.limits.max_side)


def _name_of(session: Session, batch_id: str | None) -> str:
    return "" if batch_id is None else session.scalar(select(Batch.name).where(Batch.id == batch_id)) or ""


def _batch_request(app_context: AppContext, fields: dict[str, str], *, dry_run: bool) -> BatchRequest:
    """The table of the form, a file or pasted, with its options. Raises InvalidRequest, ValidationError."""
    given = {name: value for name, value in fields.items() if value and name != "table"}
    parameters = BatchParameters.model_validate(given | {"dry_run": dry_run})
    upload = request.files.get("file")
    name = (upload.filename or "") if upload else ""
    if not name and not fields["table"]:
        raise InvalidRequest([FieldError(field="table", detail="is missing", remedy="choose a file, or paste some rows")])
    stream = cast("BinaryIO", upload.stream) if upload and name else io.BytesIO(fields["table"].encode())
    read = read_json_lines if name.lower().endswith((".jsonl", ".ndjson")) else read_csv
    table = rename(read(stream, max_rows=app_context.settings.max_batch_rows), _mapping())
    if not parameters.name and name:
        parameters = parameters.model_copy(update={"name": name[:255]})
    pictures = request.files.get("archive")
    archive = cast("BinaryIO", pictures.stream) if pictures and pictures.filename else None
    return BatchRequest(table, make_options(parameters), archive)


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
    where = [] if caller.tenant_filter is None else [Batch.tenant_id == caller.tenant_filter]
    if before:
        where.append(Batch.id < before)
    with app_context.store.read() as session:
        found = session.scalars(select(Batch).where(*where).order_by(Batch.id.desc()).limit(LISTED + 1)).all()
        cards = batch_cards(session, found[:LISTED])
        update_name = ""
        if fields["update_of"]:
            update_name = _name_of(session, fields["update_of"]) or fields["update_of"]
    return BatchesView(
        batches=cards,
        older=f"/batches?before={found[LISTED - 1].id}" if len(found) > LISTED else None,
        fields=tuple(fields.items()),
        models=tuple(app_context.catalogue.names()),
        mapping=tuple(mapping.items()),
        update_name=update_name,
        preview=preview(fields["table"][:PREVIEW_CHARS], fields["template"], json_lines=False, mapping=mapping),
        quote=quote,
        errors=errors,
        refusal=refusal,
    )
