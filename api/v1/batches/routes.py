"""Batches: submit a table, list, get, pause, resume, cancel, approve, retry failures."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from flask import Response
from pydantic import Field
from sqlalchemy.orm import Session

from api.http.cursor import make_cursor, read_cursor
from api.http.idempotency_key import read_key, replay
from api.http.links import base_url, next_link
from api.http.routes import IDEMPOTENCY_KEY, AppContext, Caller, Reply, Routes, Scope
from api.http.schemas import Query
from api.v1.batches.batch_request import CONSUMES, read_batch_request
from api.v1.schemas.batch_parameters import BatchParameters
from api.v1.schemas.batches import (
    BatchList,
    BatchResponse,
    batch_detail,
    batch_responses,
    dry_run_response,
    new_batch_response,
)
from imagefarm.ids import is_id
from imagefarm.states import BatchState
from imagefarm.store import batches
from imagefarm.store.idempotency import IdempotencyKey
from imagefarm.store.models import Batch
from scheduler.batches.actions import BatchAction, act_on_batch
from scheduler.batches.submit import launch_batch, quote_batch

routes = Routes(tag="batches")


class BatchQuery(Query):
    """Filters of the list of batches."""

    state: list[BatchState] = Field(default_factory=list, description="Any of these; may be repeated")
    limit: int = Field(50, ge=1, le=200)
    cursor: Annotated[str, Field(max_length=200)] | None = Field(None, description="`next_cursor` of the previous page")


@routes.post(
    "/api/v1/batches",
    scope=Scope.SUBMIT,
    response=BatchResponse,
    status=202,
    extra_statuses=(200,),
    errors=(404, 409, 429),
    headers=(IDEMPOTENCY_KEY,),
    consumes=CONSUMES,
    max_body=lambda settings: settings.max_table_bytes,
)
def submit_batch(app_context: AppContext, caller: Caller, query: BatchParameters) -> Reply | Response:
    """Submit a table.

    Send a CSV table with a header, or JSON Lines with one object per row; or a form with the table as `file` and a ZIP of the
    images that it names as `archive`; or, for few rows, one JSON object `{"name", "template", "defaults", "variants", "rows"}`.
    The template makes a row's prompt: `{{ column }}`, filters such as `|lower` and `|default('')`, `{% if column %}`. Columns
    named like recipe fields (`model`, `width`, `seed` ...) override the defaults. `image`, `mask` and `subject` name images: a
    path in the ZIP, an asset's id or name, or a URL. The response is 202 once all jobs are committed. A bad row refuses the whole
    table, unless `on_error=skip`. `update_of` names an earlier batch of the same table: only rows that changed since are
    rendered. `dry_run=true` stores nothing and returns 200 with a report, the cost and the first prompts.
    """
    base = base_url()
    with read_batch_request(query, app_context.settings) as (batch_request, sha256):
        key = read_key(sha256)
        if batch_request.options.dry_run:
            return Reply(dry_run_response(*quote_batch(app_context, caller, batch_request)), 200)
        with app_context.store.write() as session:
            stored = key.take(session, caller.tenant_id)
        if stored is not None:
            return replay(stored)
        responses: list[BatchResponse] = []

        def save_response(session: Session, batch: Batch) -> None:
            responses.append(new_batch_response(session, batch, base))
            key.keep(session, caller.tenant_id, 202, responses[-1].model_dump_json())

        try:
            launch_batch(app_context, caller, batch_request, on_commit=save_response)
        except BaseException:
            _free(app_context, caller, key)
            raise
    response = responses[-1]
    return Reply(response, 202, {"Location": response.urls.self} if response.urls else {})


def _free(app_context: AppContext, caller: Caller, key: IdempotencyKey) -> None:
    with app_context.store.write() as session:
        key.give_back(session, caller.tenant_id)


@routes.get("/api/v1/batches", scope=Scope.READ, response=BatchList)
def list_batches(app_context: AppContext, caller: Caller, query: BatchQuery) -> Reply:
    """List batches, newest first."""
    states = tuple(dict.fromkeys(query.state))
    wanted = f"batches {caller.tenant_filter} {states}"
    before = read_cursor(query.cursor, wanted, form=partial(is_id, prefix="batch"))
    with app_context.store.read() as session:
        found = batches.list_batches(session, caller.tenant_filter, limit=query.limit + 1, before=before, states=states)
        items = batch_responses(session, found[: query.limit], base_url())
    cursor = make_cursor(found[query.limit - 1].id, wanted) if len(found) > query.limit else None
    return Reply(BatchList(items=items, next_cursor=cursor), headers=next_link(cursor))


@routes.get("/api/v1/batches/{batch_id}", scope=Scope.READ, response=BatchResponse)
def get_batch(app_context: AppContext, caller: Caller, batch_id: str) -> BatchResponse:
    """Get a batch."""
    return visible_batch_response(app_context, caller, batch_id)


@routes.post("/api/v1/batches/{batch_id}/pause", scope=Scope.SUBMIT, response=BatchResponse, errors=(409,))
def pause_batch(app_context: AppContext, caller: Caller, batch_id: str) -> BatchResponse:
    """Pause a batch.

    Its waiting jobs are held; running jobs finish.
    """
    return _act(app_context, caller, batch_id, BatchAction.PAUSE)


@routes.post("/api/v1/batches/{batch_id}/resume", scope=Scope.SUBMIT, response=BatchResponse, errors=(409,))
def resume_batch(app_context: AppContext, caller: Caller, batch_id: str) -> BatchResponse:
    """Resume a paused batch."""
    return _act(app_context, caller, batch_id, BatchAction.RESUME)


@routes.post("/api/v1/batches/{batch_id}/cancel", scope=Scope.SUBMIT, response=BatchResponse, errors=(409,))
def cancel_batch(app_context: AppContext, caller: Caller, batch_id: str) -> BatchResponse:
    """Cancel the unfinished jobs of a batch."""
    return _act(app_context, caller, batch_id, BatchAction.CANCEL)


@routes.post("/api/v1/batches/{batch_id}/retry-failed", scope=Scope.SUBMIT, response=BatchResponse, errors=(409,))
def retry_failed_batch(app_context: AppContext, caller: Caller, batch_id: str) -> BatchResponse:
    """Retry the failed jobs of a batch."""
    return _act(app_context, caller, batch_id, BatchAction.RETRY_FAILED)


@routes.post("/api/v1/batches/{batch_id}/approve", scope=Scope.SUBMIT, response=BatchResponse, errors=(409,))
def approve_batch(app_context: AppContext, caller: Caller, batch_id: str) -> BatchResponse:
    """Approve the canary of a batch.

    The rest of the batch is queued.
    """
    return _act(app_context, caller, batch_id, BatchAction.APPROVE)


def _act(app_context: AppContext, caller: Caller, batch_id: str, action: BatchAction) -> BatchResponse:
    act_on_batch(app_context, caller, batch_id, action)
    return visible_batch_response(app_context, caller, batch_id)


def visible_batch_response(app_context: AppContext, caller: Caller, batch_id: str) -> BatchResponse:
    """Return the current state of a batch. Raises NotFound for a batch that the caller may not see."""
    with app_context.store.read() as session:
        return batch_detail(session, batches.visible_batch(session, batch_id, caller.tenant_filter), base_url())
