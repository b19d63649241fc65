"""Batches: submit a table, list, get, pause, resume, cancel, approve, retry what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Annotated, Any

from flask import Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.batch_answers import BatchAnswer, BatchList, batch_answers, dry_run_answer, new_batch_answer
from api.batch_progress import progress_of
from api.cursor import make_cursor, read_cursor
from api.idempotency_key import IdempotencyKey, read_key, replay
from api.job_answers import base_url
from api.jobs import next_link
from api.routes import IDEMPOTENCY_KEY, Caller, Farm, Reply, Routes, Scope
from api.shapes import Query
from api.tables import TAKES, BatchParameters, Submission, read_submission
from api.thumbs import decoding
from imagefarm.errors import NotFound
from imagefarm.ids import is_id
from imagefarm.picture.channels import presets, resolve
from imagefarm.states import BatchState
from imagefarm.store.models import Batch, Job
from scheduler.admission import learnt_costs
from scheduler.batches import lifecycle
from scheduler.batches.create import create_batch
from scheduler.batches.pictures import Pictures
from scheduler.batches.plan import Plan, Submitter, plan_table
from scheduler.batches.quote import make_quote
from scheduler.batches.update import Before, earlier_batch, inherit
from scheduler.buckets import check_bucket
from scheduler.limits import tenant_limits

routes = Routes(tag="batches")


class BatchQuery(Query):
    """Filters of the list of batches."""

    state: list[BatchState] = Field(default_factory=list, description="Any of these; may be repeated")
    limit: int = Field(50, ge=1, le=200)
    cursor: Annotated[str, Field(max_length=200)] | None = Field(None, description="`next_cursor` of the page before")


@routes.post(
    "/api/v1/batches",
    scope=Scope.SUBMIT,
    answer=BatchAnswer,
    status=202,
    also=(200,),
    errors=(404, 409, 429),
    headers=(IDEMPOTENCY_KEY,),
    takes=TAKES,
    max_body=lambda settings: settings.max_table_bytes,
)
def submit_batch(farm: Farm, caller: Caller, query: BatchParameters) -> Reply | Response:
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
    with read_submission(query, farm.settings) as submission:
        key = read_key(submission.sha256)
        if submission.options.dry_run:
            return Reply(quote_of(farm, caller, submission), 200)
        with farm.store.write() as session:
            stored = key.take(session, caller.tenant_id)
        if stored is not None:
            return replay(stored)
        answers: list[BatchAnswer] = []

        def keep_answer(session: Session, batch: Batch) -> None:
            answers.append(new_batch_answer(session, batch, base))
            key.keep(session, caller.tenant_id, 202, answers[-1].model_dump_json())

        try:
            launch(farm, caller, submission, also=keep_answer)
        except BaseException:
            _free(farm, caller, key)
            raise
    answer = answers[-1]
    return Reply(answer, 202, {"Location": answer.urls.self} if answer.urls else {})


def launch(farm: Farm, caller: Caller, submission: Submission, also: Callable[[Session, Batch], None] | None = None) -> str:
    """Store a table with its pictures and its jobs, let them go, and return the batch's id. Raises what `create_batch` does."""
    with plan_of(farm, caller, submission) as (plan, pictures):
        batch_id = create_batch(
            farm.store,
            plan,
            submission.options,
            farm.settings,
            tenant_id=caller.tenant_id,
            keep_pictures=partial(pictures.keep, farm.outputs),
            also=also,
        )
    for model in sorted(plan.models):
        farm.ticket_sender.notify_lane(model)
    return batch_id


@contextmanager
def plan_of(farm: Farm, caller: Caller, submission: Submission, *, keep: bool = True) -> Iterator[tuple[Plan, Pictures]]:
    """A table's plan for this caller, and the pictures that it names; of an update, its options are made whole.

    Raises InvalidRequest, NotFound, Conflict.
    """
    before = None
    if (named := submission.options.update_of) is not None:
        with farm.store.read() as session:
            earlier = earlier_batch(session, caller.tenant_id, named)
        submission.options = inherit(submission.options, earlier)
        before = Before(farm.store, earlier.id)
    options = submission.options
    options.channels = [*resolve(options.channels, presets(farm.settings.channels_file))]
    pictures = Pictures(farm.store, farm.settings, tenant_id=caller.tenant_id, archive=submission.archive, decoding=decoding)
    with closing(pictures):
        with farm.store.read() as session:
            if options.deliver is not None:
                check_bucket(session, farm.settings, options.deliver.bucket, caller.tenant_id)
            submitter = Submitter(
                catalogue=farm.catalogue,
                tenant_id=caller.tenant_id,
                limits=tenant_limits(session, caller.tenant_id),
                costs=learnt_costs(session),
                pictures=pictures,
            )
        most = farm.settings.max_queued_per_tenant
        with closing(
            plan_table(submission.table, submission.options, submitter, max_jobs=most, keep=keep, before=before)
        ) as plan:
            yield plan, pictures


def quote_of(farm: Farm, caller: Caller, submission: Submission) -> BatchAnswer:
    """What a table would cost this caller, and what is wrong with it. Stores nothing."""
    keep = submission.options.reuse or submission.options.update_of is not None
    with plan_of(farm, caller, submission, keep=keep) as (plan, _), farm.store.read() as session:
        is_update = submission.options.update_of is not None
        quote = make_quote(
            session,
            plan,
            farm.catalogue,
            reuse_of=caller.tenant_id if keep else None,
            is_update=is_update,
            channels=submission.options.channels,
        )
    return dry_run_answer(plan, quote, submission.options)


def _free(farm: Farm, caller: Caller, key: IdempotencyKey) -> None:
    with farm.store.write() as session:
        key.give_back(session, caller.tenant_id)


@routes.get("/api/v1/batches", scope=Scope.READ, answer=BatchList)
def list_batches(farm: Farm, caller: Caller, query: BatchQuery) -> Reply:
    """List batches, newest first."""
    states = tuple(dict.fromkeys(query.state))
    wanted = f"batches {caller.tenant_filter} {states}"
    before = read_cursor(query.cursor, wanted, form=partial(is_id, prefix="batch"))
    where: list[Any] = []
    if caller.tenant_filter is not None:
        where.append(Batch.tenant_id == caller.tenant_filter)
    if states:
        where.append(Batch.state.in_(states))
    if before is not None:
        where.append(Batch.id < before)
    with farm.store.read() as session:
        found = session.scalars(select(Batch).where(*where).order_by(Batch.id.desc()).limit(query.limit + 1)).all()
        items = batch_answers(session, found[: query.limit], base_url())
    cursor = make_cursor(found[query.limit - 1].id, wanted) if len(found) > query.limit else None
    return Reply(BatchList(items=items, next_cursor=cursor), headers=next_link(cursor))


@routes.get("/api/v1/batches/{batch_id}", scope=Scope.READ, answer=BatchAnswer)
def get_batch(farm: Farm, caller: Caller, batch_id: str) -> BatchAnswer:
    """Get a batch."""
    with farm.store.read() as session:
        answer = batch_answers(session, [visible_batch(session, caller, batch_id)], base_url())[0]
        counts = answer.counts
        answer.progress = progress_of(session, batch_id, counts.held + counts.queued + counts.running)
    return answer


@routes.post("/api/v1/batches/{batch_id}/pause", scope=Scope.SUBMIT, answer=BatchAnswer, errors=(409,))
def pause_batch(farm: Farm, caller: Caller, batch_id: str) -> BatchAnswer:
    """Pause a batch.

    What waits is held; what runs finishes.
    """
    lifecycle.pause(farm.store, batch_id, tenant_of_batch(farm, caller, batch_id), by=caller.name)
    return get_batch(farm, caller, batch_id)


@routes.post("/api/v1/batches/{batch_id}/resume", scope=Scope.SUBMIT, answer=BatchAnswer, errors=(409,))
def resume_batch(farm: Farm, caller: Caller, batch_id: str) -> BatchAnswer:
    """Let a paused batch go on."""
    lifecycle.resume(farm.store, batch_id, tenant_of_batch(farm, caller, batch_id), by=caller.name)
    return _notified_batch(farm, caller, batch_id)


@routes.post("/api/v1/batches/{batch_id}/cancel", scope=Scope.SUBMIT, answer=BatchAnswer, errors=(409,))
def cancel_batch(farm: Farm, caller: Caller, batch_id: str) -> BatchAnswer:
    """Cancel what of a batch has not ended."""
    lifecycle.cancel(farm.store, batch_id, tenant_of_batch(farm, caller, batch_id), by=caller.name)
    return get_batch(farm, caller, batch_id)


@routes.post("/api/v1/batches/{batch_id}/retry-failed", scope=Scope.SUBMIT, answer=BatchAnswer, errors=(409,))
def retry_failed_batch(farm: Farm, caller: Caller, batch_id: str) -> BatchAnswer:
    """Run the failed jobs of a batch again."""
    lifecycle.retry_failed(farm.store, batch_id, tenant_of_batch(farm, caller, batch_id), by=caller.name)
    return _notified_batch(farm, caller, batch_id)


@routes.post("/api/v1/batches/{batch_id}/approve", scope=Scope.SUBMIT, answer=BatchAnswer, errors=(409,))
def approve_batch(farm: Farm, caller: Caller, batch_id: str) -> BatchAnswer:
    """Approve the canary of a batch.

    The rest of the batch is queued.
    """
    lifecycle.approve(farm.store, batch_id, tenant_of_batch(farm, caller, batch_id), by=caller.name)
    return _notified_batch(farm, caller, batch_id)


def visible_batch(session: Session, caller: Caller, batch_id: str) -> Batch:
    """The batch, if the caller may know of it. Raises NotFound."""
    batch = session.get(Batch, batch_id)
    if batch is None or not caller.can_see(batch.tenant_id):
        raise NotFound(f"no batch {batch_id[:60]!r}")
    return batch


def tenant_of_batch(farm: Farm, caller: Caller, batch_id: str) -> str:
    """Whose batch it is. Raises NotFound for one that the caller may not see."""
    with farm.store.read() as session:
        return visible_batch(session, caller, batch_id).tenant_id


def _notified_batch(farm: Farm, caller: Caller, batch_id: str) -> BatchAnswer:
    with farm.store.read() as session:
        first = select(Job.model).where(Job.batch_id == batch_id, Job.state == "queued").distinct().limit(20)
        models = session.scalars(first).all()
    for model in models:
        farm.ticket_sender.notify_lane(model)
    return get_batch(farm, caller, batch_id)
