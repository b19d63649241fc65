"""Submits one job. REST, the pages and the compatible APIs all call `submit_job`, so each of them checks the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Any, NamedTuple, Protocol, overload

from sqlalchemy.orm import Session

from imagefarm.auth import Caller
from imagefarm.catalogue import Catalogue
from imagefarm.output_store import OutputStore
from imagefarm.recipe import JobRequest, Recipe
from imagefarm.settings import Settings
from imagefarm.store import Store
from imagefarm.store.idempotency import NO_KEY, IdempotencyKey, Stored
from scheduler.assets.named_images import NamedImages, fetch_named, names_urls, with_stand_ins
from scheduler.assets.store import check_references
from scheduler.queue.new_job import NewJob, job_of_recipe
from scheduler.queue.pending_reason import WaitContext
from scheduler.queue.submit_sql import OvertakenError, check, read_submit_context, write

ACCEPTED = 202
"""HTTP status that is stored with the response to an Idempotency-Key."""


class LaneNotifier(Protocol):
    """Tells a lane that it has work."""

    def notify_lane(self, model: str) -> None:
        """Announce that the lane of this model has work. Neither blocks nor raises."""


class SubmitServices(Protocol):
    """What a process needs to submit jobs and batches."""

    @property
    def store(self) -> Store: ...

    @property
    def catalogue(self) -> Catalogue: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def outputs(self) -> OutputStore: ...

    @property
    def ticket_sender(self) -> LaneNotifier: ...

    @property
    def decode_slots(self) -> AbstractContextManager[Any]:
        """Held while an image is decoded."""


class Submission(NamedTuple):
    """A checked job that is about to be written, with what its response needs."""

    job: NewJob
    recipe: Recipe
    wait_context: WaitContext


class SubmittedJob(NamedTuple):
    """A stored job. `response` is the result of `respond`, empty without one."""

    id: str
    model: str
    response: str


Respond = Callable[[Session, Submission], str]
"""Makes the response about a job, in the transaction that writes it."""


@overload
def submit_job(
    services: SubmitServices, caller: Caller, request: JobRequest, *, respond: Respond | None = None
) -> SubmittedJob: ...


@overload
def submit_job(
    services: SubmitServices, caller: Caller, request: JobRequest, *, respond: Respond, key: IdempotencyKey
) -> SubmittedJob | Stored: ...


def submit_job(
    services: SubmitServices,
    caller: Caller,
    request: JobRequest,
    *,
    respond: Respond | None = None,
    key: IdempotencyKey = NO_KEY,
) -> SubmittedJob | Stored:
    """Check a job, fetch the images that it names by URL, store it, and notify its lane.

    With an Idempotency-Key, the response that `respond` makes is stored in the same transaction. If a request with that key came
    before, its response is returned (`Stored`) and nothing is done.

    Raises InvalidRequest (a field is wrong, or an image cannot be fetched), LimitExceeded, KeyReused and StillRunning.
    """
    if names_urls(request):
        if (stored := key.answered(services.store, caller.tenant_id)) is not None:
            return stored
        request = _fetch_images(services, caller.tenant_id, request)
    try:
        submitted = _submit(services, caller, request, respond, key)
    except OvertakenError:
        submitted = _submit(services, caller, request, respond, key)  # the other request's response is stored now
    if isinstance(submitted, SubmittedJob):
        services.ticket_sender.notify_lane(submitted.model)
    return submitted


def _submit(
    services: SubmitServices, caller: Caller, request: JobRequest, respond: Respond | None, key: IdempotencyKey
) -> SubmittedJob | Stored:
    catalogue = services.catalogue
    recipe, warnings = catalogue.resolve(request)
    with services.store.write() as session:
        context = read_submit_context(session, caller.tenant_id, recipe.model, key.key)
        if context.is_key_known and (stored := key.take(session, caller.tenant_id)) is not None:
            return stored
        job = job_of_recipe(catalogue, request, recipe, warnings, caller.tenant_id, cost_s=context.cost_s)
        check_references(session, recipe, caller.can_see)
        job = check(session, job, context, services.settings, caller.quota)
        response = "" if respond is None else respond(session, Submission(job, recipe, context.wait_context))
        write(session, job, None if context.is_key_known else key.with_work(ACCEPTED, response))
        if context.is_key_known:
            key.keep(session, caller.tenant_id, ACCEPTED, response)
    return SubmittedJob(job.id, job.model, response)


def _fetch_images(services: SubmitServices, tenant_id: str, request: JobRequest) -> JobRequest:
    """The request with assets in place of URLs. A request that would be refused anyway fetches nothing."""
    services.catalogue.resolve(with_stand_ins(request))
    images = NamedImages(services.store, services.settings, tenant_id=tenant_id, decode_slots=services.decode_slots)
    with closing(images):
        return fetch_named(images, request, services.outputs)
