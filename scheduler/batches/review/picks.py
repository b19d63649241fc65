"""Picks: decisions by people or the quality gate about a batch's images. Approved images become finals. A re-roll renders the
same recipe with the next seed, as a new job that takes over the image's name.

Images can be picked while the batch renders. A repeated request changes nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from imagefarm.auth import KeyQuota
from imagefarm.errors import Conflict, FieldError, InvalidRequest
from imagefarm.ids import new_id
from imagefarm.recipe import canonical_json
from imagefarm.settings import Settings
from imagefarm.states import BatchState, JobState
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append_many
from imagefarm.store.batches import visible_batch
from imagefarm.store.models import Batch, Image, Job, Pick
from scheduler.batches import lifecycle
from scheduler.batches.table.file_names import file_stem
from scheduler.batches.table.seeds import next_seed
from scheduler.queue.admission import submit_jobs
from scheduler.queue.new_job import NewJob

CHUNK = 250
"""Images decided per transaction."""
MAX_ERRORS = 100
REROLL_RANK = -1
"""A re-roll runs before the other waiting jobs of its flow, because a person waits for it."""


class Picked(StrEnum):
    """The decision about an image. An image without a row is open."""

    APPROVED = "approved"
    REJECTED = "rejected"
    REROLLED = "rerolled"


class PickAction(StrEnum):
    """The action requested for an image."""

    APPROVE = "approve"
    REJECT = "reject"
    REROLL = "reroll"
    CLEAR = "clear"


RESULT: dict[PickAction, Picked | None] = {
    PickAction.APPROVE: Picked.APPROVED,
    PickAction.REJECT: Picked.REJECTED,
    PickAction.REROLL: Picked.REROLLED,
    PickAction.CLEAR: None,
}


@dataclass(frozen=True, slots=True, order=True)
class ImageRef:
    """An image of a batch: job id and index in the job."""

    job_id: str
    index: int

    def __str__(self) -> str:
        return f"{self.job_id}.{self.index}"


@dataclass(frozen=True, slots=True)
class PickRequest:
    """One image of a request and the action for it; `position` is its index in the request."""

    position: int
    image_id: str
    action: PickAction


def pick(
    store: Store,
    batch_id: str,
    tenant_id: str,
    requests: Sequence[PickRequest],
    settings: Settings,
    *,
    by: str,
    quota: KeyQuota | None = None,
) -> set[str]:
    """Apply decisions to images of a batch; return the models for which re-rolls were queued.

    `quota` holds the limits of the calling key. The whole request is checked before anything changes. Raises NotFound,
    InvalidRequest naming each image that cannot be decided, Conflict for re-rolls of a batch that accepts no further jobs,
    LimitExceeded if the queue has no room for the re-rolls.
    """
    with store.read() as session:
        batch = visible_batch(session, batch_id, tenant_id)
        _check(session, batch, requests)
    models: set[str] = set()
    for start in range(0, len(requests), CHUNK):
        some = requests[start : start + CHUNK]
        decide = partial(_decide, batch_id=batch_id, requests=some, settings=settings, by=by, quota=quota)
        models |= store.run_with_retry(decide)
        time.sleep(lifecycle.YIELD_S)
    lifecycle.reconcile_all_jobs(store, batch_id)
    return models


def _check(session: Session, batch: Batch, requests: Sequence[PickRequest]) -> None:
    errors: list[FieldError] = []

    def wrong(request: PickRequest, detail: str, remedy: str) -> None:
        if len(errors) < MAX_ERRORS:
            errors.append(FieldError(field=f"picks.{request.position}.image_id", detail=detail, remedy=remedy))

    seen: dict[str, PickAction] = {}
    for start in range(0, len(requests), CHUNK):
        some = requests[start : start + CHUNK]
        occurrences = _occurrences(session, batch.id, {request.image_id for request in some})
        known = picks_of(session, {ref.job_id for found in occurrences.values() for ref, _, _ in found})
        for request in some:
            if seen.setdefault(request.image_id, request.action) is not request.action:
                wrong(request, f"{request.image_id} occurs twice with different picks", "send one pick for each picture")
            if not occurrences.get(request.image_id):
                wrong(request, f"batch {batch.id} has no picture {request.image_id}", "name pictures of this batch")
            elif request.action is not PickAction.REROLL:
                replaced = [known[ref].replaced_by for ref, _, _ in occurrences[request.image_id] if ref in known]
                if by := next(filter(None, replaced), None):
                    wrong(request, f"{request.image_id} was re-rolled: {by} takes its place", f"decide about the picture of {by}")
    if errors:
        raise InvalidRequest(errors)
    if any(request.action is PickAction.REROLL for request in requests) and batch.state in CLOSED:
        raise Conflict(f"batch {batch.id} is {batch.state}: its pictures cannot be rendered again; submit it again")


CLOSED = {BatchState.CANCELLED, BatchState.VALIDATING}


def _decide(
    session: Session,
    *,
    batch_id: str,
    requests: Sequence[PickRequest],
    settings: Settings,
    by: str,
    quota: KeyQuota | None,
) -> set[str]:
    batch = lifecycle.get_for_update(session, batch_id)
    occurrences = _occurrences(session, batch_id, {request.image_id for request in requests})
    known = picks_of(session, {ref.job_id for found in occurrences.values() for ref, _, _ in found})
    now = session.scalar(select(db_now())) or 0.0
    events: list[tuple[str, str, str | None, dict[str, Any]]] = []
    rerolls: list[NewJob] = []
    for image_id, action in {request.image_id: request.action for request in requests}.items():
        wanted = RESULT[action]
        for ref, job, image in occurrences.get(image_id, []):
            before = known.get(ref)
            if (None if before is None else before.pick) == wanted or (before is not None and before.replaced_by):
                continue
            reroll = None
            if wanted is Picked.REROLLED:
                if batch.state in CLOSED:
                    continue  # the batch was cancelled after the check
                reroll = reroll_job(job, image, held=batch.state == BatchState.PAUSED)
                rerolls.append(reroll)
            set_pick(session, before, ref, batch_id, wanted, at=now, replaced_by=reroll.id if reroll else None)
            data = {"batch": batch_id, "job": ref.job_id, "pick": wanted or "open", "by": by}
            events.append(("image.picked", image_id, batch.tenant_id, data | ({"replaced_by": reroll.id} if reroll else {})))
    append_many(session, events)
    if rerolls:
        add_rerolls(session, batch, rerolls, settings, by=by, quota=quota)
    return {reroll.model for reroll in rerolls}


def set_pick(
    session: Session,
    before: Pick | None,
    ref: ImageRef,
    batch_id: str,
    wanted: Picked | None,
    *,
    at: float,
    replaced_by: str | None,
) -> None:
    """Replace the decision `before` by `wanted` (None: open), in the caller's transaction."""
    if wanted is None:
        session.execute(delete(Pick).where(Pick.job_id == ref.job_id, Pick.index == ref.index))
    elif before is None:
        session.add(Pick(job_id=ref.job_id, index=ref.index, batch_id=batch_id, pick=wanted, replaced_by=replaced_by, at=at))
    else:
        before.pick, before.replaced_by, before.at = wanted, replaced_by, at


def reroll_job(job: Job, image: Image, *, held: bool = False) -> NewJob:
    """The job that renders an image again with the next seed, under the image's name."""
    seed = next_seed(int(image.seed))
    recipe = job.recipe | {"seed": str(seed)}
    return NewJob(
        id=new_id("job"),
        tenant_id=job.tenant_id,
        priority_class=job.priority_class,
        rank=REROLL_RANK,
        model=job.model,
        compat_key=job.compat_key,
        state=str(JobState.HELD if held else JobState.QUEUED),
        recipe=recipe,
        recipe_hash=hashlib.sha256(canonical_json(recipe).encode()).hexdigest(),
        prompt=job.prompt,
        count=1,
        labels=job.labels,
        custom_id=job.custom_id,
        batch_id=job.batch_id,
        row=job.row,
        name=None if job.name is None else file_stem(job.name, image.index, job.count),
        from_image=image.id,
        cost_s=job.cost_s / job.count,
    )


def add_rerolls(
    session: Session, batch: Batch, rerolls: list[NewJob], settings: Settings, *, by: str, quota: KeyQuota | None = None
) -> None:
    """Add jobs to a batch, and queue it again if it was done, in the caller's transaction. Raises LimitExceeded."""
    submit_jobs(session, rerolls, settings, quota=quota)
    batch.accepted += len(rerolls)
    lifecycle.reopen(session, batch, by=by)


def _occurrences(session: Session, batch_id: str, image_ids: Collection[str]) -> dict[str, list[tuple[ImageRef, Job, Image]]]:
    """By image id: where the image occurs in the batch. An image that jobs reuse may occur several times."""
    images = {image.id: image for image in session.scalars(select(Image).where(Image.id.in_(image_ids)))}
    makers = {image.job_id for image in images.values()}
    jobs: dict[str, list[Job]] = {}
    for column in (Job.id, Job.reuses):
        for job in session.scalars(select(Job).where(column.in_(makers), Job.batch_id == batch_id)):
            if column is Job.reuses or job.reuses is None:
                jobs.setdefault(job.reuses or job.id, []).append(job)
    return {
        image.id: [(ImageRef(job.id, image.index), job, image) for job in jobs.get(image.job_id, []) if image.index < job.count]
        for image in images.values()
    }


def picks_of(session: Session, job_ids: Iterable[str]) -> dict[ImageRef, Pick]:
    """The picks of the images of these jobs."""
    ids = list(job_ids)
    if not ids:
        return {}
    return {ImageRef(row.job_id, row.index): row for row in session.scalars(select(Pick).where(Pick.job_id.in_(ids)))}


def pick_counts(session: Session, batch_ids: Collection[str]) -> dict[str, dict[str, int]]:
    """By batch: how many images are approved, rejected, re-rolled and open."""
    result = {batch_id: {"approved": 0, "rejected": 0, "rerolled": 0, "open": 0} for batch_id in batch_ids}
    if not result:
        return result
    # an index with the state serves this: a batch's images are those of its succeeded jobs
    pictures = session.execute(
        select(Job.batch_id, func.sum(Job.count))
        .where(Job.batch_id.in_(result), Job.state == JobState.SUCCEEDED)
        .group_by(Job.batch_id)
    )
    for batch_id, number in pictures:
        result[batch_id or ""]["open"] = number
    picked = session.execute(
        select(Pick.batch_id, Pick.pick, func.count()).where(Pick.batch_id.in_(result)).group_by(Pick.batch_id, Pick.pick)
    )
    for batch_id, kind, number in picked:
        result[batch_id][kind] = number
        result[batch_id]["open"] -= number
    return result
