"""Plans, quotes and launches a table, for the REST API and the pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, NamedTuple

from sqlalchemy.orm import Session

from imagefarm.auth import Caller
from imagefarm.imaging.channels import presets, resolve
from imagefarm.store.batches import visible_batch
from imagefarm.store.models import Batch
from scheduler.assets.named_images import NamedImages
from scheduler.batches.create import create_batch
from scheduler.batches.quote import Quote, make_quote
from scheduler.batches.review.finals import FinalsOptions, make_finals
from scheduler.batches.table.incremental import PreviousBatch, earlier_batch, inherit
from scheduler.batches.table.options import BatchOptions
from scheduler.batches.table.table_plan import Submitter, TablePlan, plan_table
from scheduler.batches.table.table_reader import TableSource
from scheduler.delivery.buckets import check_bucket
from scheduler.queue.admission import learnt_costs
from scheduler.queue.limits import tenant_limits
from scheduler.queue.submit import SubmitServices


@dataclass(slots=True)
class BatchRequest:
    """A table and its options. Planning an update adds the options of the batch to update."""

    table: TableSource
    options: BatchOptions
    archive: BinaryIO | None = None
    """The ZIP of the images that the rows refer to."""


class QuotedBatch(NamedTuple):
    """The plan of a table, its predicted cost, and the options that apply."""

    plan: TablePlan
    quote: Quote
    options: BatchOptions


@contextmanager
def plan_batch(
    services: SubmitServices, caller: Caller, batch_request: BatchRequest, *, keep: bool = True
) -> Iterator[tuple[TablePlan, NamedImages]]:
    """A table's plan for this caller, and the images that it refers to. `keep` False: the jobs are only counted.

    Raises InvalidRequest, NotFound (the batch to update), Conflict.
    """
    previous, given = None, batch_request.options
    if (named := batch_request.options.update_of) is not None:
        with services.store.read() as session:
            earlier = earlier_batch(session, caller.tenant_id, named)
        batch_request.options = inherit(batch_request.options, earlier)
        previous = PreviousBatch(services.store, earlier.id)
    options = batch_request.options
    options.channels = [*resolve(options.channels, presets(services.settings.channels_file))]
    named_images = NamedImages(
        services.store,
        services.settings,
        tenant_id=caller.tenant_id,
        archive=batch_request.archive,
        decode_slots=services.decode_slots,
    )
    with closing(named_images):
        submitter = _submitter(services, caller, options, named_images)
        max_jobs = services.settings.max_queued_per_tenant
        table = batch_request.table.open(options, given)
        plan = plan_table(table, options, submitter, max_jobs=max_jobs, keep=keep, previous=previous)
        with closing(plan):
            yield plan, named_images


def _submitter(services: SubmitServices, caller: Caller, options: BatchOptions, named_images: NamedImages) -> Submitter:
    with services.store.read() as session:
        if options.deliver is not None:
            check_bucket(session, services.settings, options.deliver.bucket, caller.tenant_id)
        return Submitter(
            catalogue=services.catalogue,
            tenant_id=caller.tenant_id,
            limits=tenant_limits(session, caller.tenant_id, caller.quota),
            costs=learnt_costs(session),
            named_images=named_images,
        )


def quote_batch(services: SubmitServices, caller: Caller, batch_request: BatchRequest) -> QuotedBatch:
    """Predict the cost of a table for this caller and find its errors. Stores nothing; the returned plan is closed."""
    is_update = batch_request.options.update_of is not None
    keep = batch_request.options.reuse or is_update
    with plan_batch(services, caller, batch_request, keep=keep) as (plan, _), services.store.read() as session:
        quote = make_quote(
            session,
            plan,
            services.catalogue,
            reuse_of=caller.tenant_id if keep else None,
            is_update=is_update,
            channels=batch_request.options.channels,
        )
    return QuotedBatch(plan, quote, batch_request.options)


def launch_batch(
    services: SubmitServices,
    caller: Caller,
    batch_request: BatchRequest,
    on_commit: Callable[[Session, Batch], None] | None = None,
) -> str:
    """Store a table with its images and its jobs, queue the jobs, and return the batch's id.

    `on_commit` is called in the transaction that accepts the batch. Raises the errors of `plan_batch` and `create_batch`.
    """
    with plan_batch(services, caller, batch_request) as (plan, named_images):
        batch_id = create_batch(
            services.store,
            plan,
            batch_request.options,
            services.settings,
            tenant_id=caller.tenant_id,
            quota=caller.quota,
            save_images=partial(named_images.save, services.outputs),
            on_commit=on_commit,
        )
    for model in sorted(plan.models):
        services.ticket_sender.notify_lane(model)
    return batch_id


def launch_finals(services: SubmitServices, caller: Caller, finals_options: FinalsOptions, *, batch_id: str) -> tuple[str, bool]:
    """Render the approved images of a batch as finals; return the id of the finals batch, and whether it is new.

    Raises the errors of `make_finals`, and InvalidRequest for a bucket that the batch's tenant may not use.
    """
    with services.store.read() as session:
        tenant_id = visible_batch(session, batch_id, caller.tenant_filter).tenant_id
        if finals_options.deliver is not None:
            check_bucket(session, services.settings, finals_options.deliver.bucket, tenant_id)
    finals_id, is_new, models = make_finals(
        services.store,
        services.catalogue,
        services.settings,
        finals_options,
        batch_id=batch_id,
        tenant_id=tenant_id,
        quota=caller.quota,
    )
    for model in sorted(models):
        services.ticket_sender.notify_lane(model)
    return finals_id, is_new
