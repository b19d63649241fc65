"""Creates a batch from a planned table: stores its jobs as held, accepts the batch in one small commit, then queues the jobs.

The batch id is returned only after that commit. Before it, the sweep cancels the batch if the submitting process died. After it,
the sweep queues the jobs that the process did not queue.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from imagefarm.auth import KeyQuota
from imagefarm.errors import FieldError, InvalidRequest, Unavailable
from imagefarm.ids import new_id
from imagefarm.settings import Settings
from imagefarm.states import BatchState
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append
from imagefarm.store.models import Batch
from scheduler.batches import delivery_schedule, lifecycle
from scheduler.batches.reuse import find_rendered, split, submit_reused
from scheduler.batches.table.incremental import Change, counted, row_change
from scheduler.batches.table.options import BatchOptions, OnError
from scheduler.batches.table.spool import Chunk
from scheduler.batches.table.stored_rows import save_rows
from scheduler.batches.table.table_plan import TablePlan
from scheduler.queue import limits
from scheduler.queue.admission import submit_jobs
from scheduler.queue.new_job import NewJob


def check_errors(plan: TablePlan, options: BatchOptions) -> None:
    """Raise InvalidRequest with the row errors if the batch must not be queued with them."""
    if not plan.errors:
        return
    if options.on_error is OnError.ABORT:
        first = f"nothing was queued: {plan.rejected} of {plan.accepted + plan.rejected} jobs have errors"
        raise InvalidRequest(plan.errors, f"{first}; correct them, or send on_error=skip to leave them out")
    if not plan.accepted:
        raise InvalidRequest(plan.errors, "nothing was queued: every row has errors")


def create_batch(
    store: Store,
    plan: TablePlan,
    options: BatchOptions,
    settings: Settings,
    *,
    tenant_id: str,
    quota: KeyQuota | None = None,
    drafts: str | None = None,
    save_images: Callable[[], None] | None = None,
    on_commit: Callable[[Session, Batch], None] | None = None,
) -> str:
    """Store a planned table with all its jobs, queue the jobs, and return the batch's id. When it returns, the batch is durable.

    `quota` holds the limits of the submitting key. `drafts` is the id of the batch whose approved images this batch renders as
    finals. `save_images` stores the input images of the rows; it is called after the rows and the queue limit have been checked.
    `on_commit` is called in the transaction that accepts the batch.

    Raises InvalidRequest (rows have errors and `on_error` is abort, or every row has errors), LimitExceeded (the queue has no
    room), Unavailable (the batch was cancelled while it was being stored). After an error no job of the batch runs.
    """
    check_errors(plan, options)
    if save_images is not None:
        with store.read() as session:
            limits.check_queue(session, tenant_id, plan.accepted, settings, quota=quota)
        save_images()
    batch_id = new_id("batch")
    store.run_with_retry(
        lambda session: _open(
            session, batch_id, plan, options, settings=settings, tenant_id=tenant_id, quota=quota, drafts=drafts
        )
    )
    changes: Counter[Change] = Counter()
    try:
        for chunk in plan.spool:
            jobs = list(new_jobs(chunk, batch_id))
            changes += store.run_with_retry(
                partial(_write, batch_id=batch_id, chunk=chunk, jobs=jobs, settings=settings, options=options, quota=quota)
            )
            time.sleep(lifecycle.YIELD_S)
        kept = counted(changes, plan.removed) if options.update_of else None
        store.run_with_retry(lambda session: _commit(session, batch_id, plan, kept, on_commit))
    except BaseException:
        lifecycle.cancel(store, batch_id, tenant_id, by="its submission failed")
        raise
    lifecycle.reconcile_jobs_soon(store, batch_id)
    return batch_id


def _open(
    session: Session,
    batch_id: str,
    plan: TablePlan,
    options: BatchOptions,
    *,
    settings: Settings,
    tenant_id: str,
    quota: KeyQuota | None,
    drafts: str | None,
) -> None:
    limits.check_queue(session, tenant_id, plan.accepted, settings, quota=quota)
    if not options.reuse:  # with reuse, each chunk is checked: the number of images to render is not known yet
        now = session.scalar(select(db_now())) or 0.0
        limits.check_day(session, tenant_id, plan.images, limits.tenant_limits(session, tenant_id), now, quota=quota)
    kept = options.model_dump(mode="json", exclude={"name", "template", "dry_run"})
    kept["warnings"] = [error_json(warning) for warning in plan.warnings]
    session.execute(
        insert(Batch).values(
            id=batch_id,
            tenant_id=tenant_id,
            drafts=drafts,
            name=options.name,
            state=BatchState.VALIDATING,
            template=options.template,
            options=kept | {"canary_row": plan.canary_row, "approved": not plan.canary_row, "columns": list(plan.columns)},
            rows=plan.rows,
            accepted=plan.accepted,
            rejected=plan.rejected,
            errors=[error_json(error) for error in plan.errors],
            created_at=db_now(),
        )
    )
    data = {"rows": plan.rows, "jobs": plan.accepted} | ({"drafts": drafts} if drafts else {})
    append(session, "batch.submitted", batch_id, tenant_id, data)
    if options.deliver is not None:
        delivery_schedule.schedule(session, session.get_one(Batch, batch_id), options.deliver, by="its submission")


def _write(
    session: Session,
    *,
    batch_id: str,
    chunk: Chunk,
    jobs: list[NewJob],
    settings: Settings,
    options: BatchOptions,
    quota: KeyQuota | None,
) -> Counter[Change]:
    """Store a chunk's rows and jobs. For an update, return the number of jobs by change; otherwise an empty counter."""
    to_render, reused = jobs, list[NewJob]()
    if options.reuse and jobs:
        rendered = find_rendered(session, jobs[0].tenant_id, {job.recipe_hash for job in jobs}, options.channels)
        to_render, reused = split(jobs, rendered)
    changes: Counter[Change] = Counter()
    if options.update_of:
        taken = {job.id for job in reused}
        by_row: dict[int, list[Change]] = {}
        for planned, job in zip(chunk.jobs, jobs, strict=True):
            if job.id in taken:
                change = Change.REUSED
            else:
                change = Change.UNFINISHED if planned.change == Change.SAME else Change(planned.change)
            changes[change] += 1
            by_row.setdefault(planned.row, []).append(change)
        save_rows(session, batch_id, [[*row[:3], row_change(by_row.get(row[0], ()))] for row in chunk.rows])
    elif chunk.rows:  # finals of one row may fill more than one chunk
        save_rows(session, batch_id, chunk.rows)
    submit_reused(session, reused)
    submit_jobs(session, to_render, settings, quota=quota)
    return changes


def _commit(
    session: Session,
    batch_id: str,
    plan: TablePlan,
    changes: dict[str, int] | None,
    on_commit: Callable[[Session, Batch], None] | None,
) -> None:
    batch = lifecycle.get_for_update(session, batch_id)
    if batch.state == BatchState.CANCELLED:
        raise Unavailable("the batch was cancelled while it was being stored; send it again")
    if plan.canary_row:
        lifecycle.release_canary(session, batch, plan.canary_row)
    batch.state = BatchState.HELD if plan.canary_row else BatchState.QUEUED
    if changes is not None:
        batch.options = {**batch.options, "changes": changes}
    if on_commit is not None:
        on_commit(session, batch)


def new_jobs(chunk: Chunk, batch_id: str) -> Iterable[NewJob]:
    """The planned jobs of a chunk as new jobs with ids."""
    for job in chunk.jobs:
        base = chunk.bases[job.base]
        yield base._replace(
            id=new_id("job"),
            recipe=base.recipe | {"prompt": job.prompt, "seed": str(job.seed)},
            recipe_hash=job.recipe_hash,
            prompt=job.prompt,
            labels=job.labels,
            custom_id=job.custom_id,
            batch_id=batch_id,
            row=job.row,
            name=job.name,
            from_image=job.from_image,
        )


def error_json(error: FieldError) -> dict[str, Any]:
    """An error as responses and the database contain it."""
    return {"row": error.row, "field": error.field, "detail": error.detail, "remedy": error.remedy}
