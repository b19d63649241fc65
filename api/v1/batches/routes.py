"""Batches: submit a table, list, get, pause, resume, cancel, approve, retry what failed."""

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
    cursor: Annotated[str, Field(max_length=200)] | None = Field(None, description="`next_cursor` of the page before")


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

    A CSV table with a header, or one JSON object a line; or a form with the table as `file`, and as `archive` a ZIP of the
    pictures that it names; or, for few rows, one JSON object `{"name", "template", "defaults", "variants", "rows"}`. The
    template makes a row's prompt: `{{ column }}`, filters such as `|lower` and `|default('')`, `{% if column %}`. Columns
    called like fields of a recipe (`model`, `width`, `seed` ...) win over the defaults; `image`, `mask` and `subject` name
    pictures: a path in the ZIP, an asset's id or name, or a URL. The answer is 202 once every job is stored for good; a bad
    row refuses the whole table, unless `on_error=skip`. `update_of` names an earlier batch of the same table: only what
    changed since is rendered. `dry_run=true` stores nothing and answers 200 with the report, the
    cost and the first prompts.
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

    What waits is held; what runs finishes.
    """
    return _act(app_context, caller, batch_id, BatchAction.PAUSE)


@routes.post("/api/v1/batches/{batch_id}/resume", scope=Scope.SUBMIT, response=BatchResponse, errors=(409,))
def resume_batch(app_context: AppContext, caller: Caller, batch_id: str) -> BatchResponse:
    """Let a paused batch go on."""
    return _act(app_context, caller, batch_id, BatchAction.RESUME)


@routes.post("/api/v1/batches/{batch_id}/cancel", scope=Scope.SUBMIT, response=BatchResponse, errors=(409,))
def cancel_batch(app_context: AppContext, caller: Caller, batch_id: str) -> BatchResponse:
    """Cancel what of a batch has not ended."""
    return _act(app_context, caller, batch_id, BatchAction.CANCEL)


@routes.post("/api/v1/batches/{batch_id}/retry-failed", scope=Scope.SUBMIT, response=BatchResponse, errors=(409,))
def retry_failed_batch(app_context: AppContext, caller: Caller, batch_id: str) -> BatchResponse:
    """Run the failed jobs of a batch again."""
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
    """A batch as it is now. Raises NotFound for one that the caller may not see."""
    with app_context.store.read() as session:
        return batch_detail(session, batches.visible_batch(session, batch_id, caller.tenant_filter), base_url())
