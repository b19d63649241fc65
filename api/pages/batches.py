"""Batches: the list with the form `/batches`, one batch `/batches/{id}` with its contact sheet, and its orders."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from flask import Blueprint, Response, redirect, request
from pydantic import ValidationError
from sqlalchemy import select

from api import batches as api_batches
from api.auth import authenticate, require
from api.batch_answers import BatchAnswer
from api.context import Farm, current_farm
from api.field_errors import field_errors
from api.pages.batch_view import BatchCard, ErrorGroup, Sheet, batch_cards, error_groups, rate_per_minute, sheet
from api.pages.rendering import page
from api.tables import BatchParameters, Submission, make_options
from imagefarm.auth import Caller, Scope
from imagefarm.errors import FieldError, InvalidRequest, NotFound, RequestError
from imagefarm.ids import is_id
from imagefarm.store.models import Batch
from scheduler.batches.rows import read_csv, read_json_lines

pages = Blueprint("pages_batches", __name__)

LISTED = 30
FIELDS = ("name", "template", "table", "model", "canary", "variants", "on_error", "count", "steps", "seed")
EXAMPLE = {
    "template": "{{ product }} on a {{ background }}",
    "table": "sku,product,background\nMUG-RED,a red mug,white background\nVASE-BLUE,a blue vase,yellow background\n",
}
ORDERS: dict[str, Callable[[Farm, Caller, str], BatchAnswer]] = {
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
    quote: BatchAnswer | None
    errors: tuple[FieldError, ...]
    refusal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchView:
    """One batch. `left_s` is the expected time to its end, None when nothing moves."""

    batch: BatchCard
    errors: tuple[ErrorGroup, ...]
    bad_rows: tuple[tuple[tuple[str, str], ...], ...]
    rate: int
    left_s: float | None
    sheet: Sheet


@pages.get("/batches")
def batches_page() -> Response:
    """List batches, with the form for a new one."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.READ)
    return page("batches.html", _batches_view(farm, caller, {}))


@pages.post("/batches")
def batches_form() -> Any:
    """Quote a table, or launch it. What is wrong with it comes back with the form."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.SUBMIT)
    request.max_content_length = farm.settings.max_table_bytes
    fields = {name: request.form.get(name, "").strip() for name in FIELDS}
    try:
        submission = _submission(farm, fields, dry_run=request.form.get("act") != "launch")
        if submission.options.dry_run:
            quote = api_batches.quote_of(farm, caller, submission)
            return page("batches.html", _batches_view(farm, caller, fields, quote=quote))
        batch_id = _launch(farm, caller, submission)
    except ValidationError as error:
        wrong = field_errors(error, BatchParameters, whole="form")
        return page("batches.html", _batches_view(farm, caller, fields, errors=tuple(wrong)), 422)
    except RequestError as error:
        wrong = error.errors if isinstance(error, InvalidRequest) else []
        view = _batches_view(farm, caller, fields, errors=tuple(wrong), refusal=error.detail)
        return page("batches.html", view, error.status)
    return redirect(f"/batches/{batch_id}", 303)


@pages.get("/batches/<batch_id>")
def batch_page(batch_id: str) -> Response:
    """Show one batch."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.READ)
    with farm.store.read() as session:
        batch = api_batches.visible_batch(session, caller, batch_id)
        card = batch_cards(session, [batch])[0]
        rate = rate_per_minute(session, batch_id) if card.open else 0
        view = BatchView(
            batch=card,
            errors=error_groups(session, batch_id),
            bad_rows=tuple(tuple((str(k), "" if v is None else str(v)) for k, v in error.items()) for error in batch.errors[:20]),
            rate=rate,
            left_s=card.open / rate * 60 if rate else None,
            sheet=sheet(session, batch_id, ""),
        )
    return page("batch.html", view)


@pages.get("/batches/<batch_id>/sheet")
def sheet_page(batch_id: str) -> Response:
    """Show a piece of the contact sheet."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.READ)
    after = request.args.get("after", "")
    if after and not is_id(after, "job"):
        raise InvalidRequest([FieldError(field="after", detail="is not the id of a job", remedy="leave it out")])
    with farm.store.read() as session:
        api_batches.visible_batch(session, caller, batch_id)
        view = sheet(session, batch_id, after)
    return page("sheet.html", view)


@pages.post("/batches/<batch_id>/<order>")
def order_form(batch_id: str, order: str) -> Any:
    """Pause, resume, approve, cancel a batch or run its failures again, and go back to it."""
    farm = current_farm()
    caller = authenticate(farm)
    require(caller, Scope.SUBMIT)
    if order not in ORDERS:
        raise NotFound(f"a batch takes no order {order[:40]!r}; it takes {', '.join(ORDERS)}")
    ORDERS[order](farm, caller, batch_id)
    return redirect(f"/batches/{batch_id}", 303)


def _submission(farm: Farm, fields: dict[str, str], *, dry_run: bool) -> Submission:
    """The table of the form, a file or pasted, with its options. Raises InvalidRequest, ValidationError."""
    given = {name: value for name, value in fields.items() if value and name != "table"}
    parameters = BatchParameters.model_validate(given | {"dry_run": dry_run})
    upload = request.files.get("file")
    name = (upload.filename or "") if upload else ""
    if not name and not fields["table"]:
        raise InvalidRequest([FieldError(field="table", detail="is missing", remedy="choose a file, or paste some rows")])
    stream = cast("BinaryIO", upload.stream) if upload and name else io.BytesIO(fields["table"].encode())
    read = read_json_lines if name.lower().endswith((".jsonl", ".ndjson")) else read_csv
    table = read(stream, max_rows=farm.settings.max_batch_rows)
    if not parameters.name and name:
        parameters = parameters.model_copy(update={"name": name[:255]})
    pictures = request.files.get("archive")
    archive = cast("BinaryIO", pictures.stream) if pictures and pictures.filename else None
    return Submission(table, make_options(parameters), "", archive)


def _launch(farm: Farm, caller: Caller, submission: Submission) -> str:
    return api_batches.launch(farm, caller, submission)


def _batches_view(
    farm: Farm,
    caller: Caller,
    fields: dict[str, str],
    *,
    quote: BatchAnswer | None = None,
    errors: tuple[FieldError, ...] = (),
    refusal: str = "",
) -> BatchesView:
    before = request.args.get("before", "")
    if before and not is_id(before, "batch"):
        raise InvalidRequest([FieldError(field="before", detail="is not the id of a batch", remedy="leave it out")])
    where = [] if caller.tenant_filter is None else [Batch.tenant_id == caller.tenant_filter]
    if before:
        where.append(Batch.id < before)
    with farm.store.read() as session:
        found = session.scalars(select(Batch).where(*where).order_by(Batch.id.desc()).limit(LISTED + 1)).all()
        cards = batch_cards(session, found[:LISTED])
    return BatchesView(
        batches=cards,
        older=f"/batches?before={found[LISTED - 1].id}" if len(found) > LISTED else None,
        fields=tuple((fields or dict.fromkeys(FIELDS, "")).items()),
        models=tuple(farm.catalogue.names()),
        quote=quote,
        errors=errors,
        refusal=refusal,
    )
