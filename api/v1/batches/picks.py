"""Picks: list a batch's images, approve or reject them, and render the approved ones as finals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from api.http.cursor import make_cursor, read_cursor
from api.http.links import base_url, next_link
from api.http.routes import AppContext, Caller, Reply, Routes, Scope
from api.http.schemas import Body, Query, ResponseModel
from api.v1.batches.routes import visible_batch_response
from api.v1.schemas.batches import BatchResponse
from api.v1.schemas.finals import FinalsBody
from api.v1.schemas.images import ImageResponse, image_response
from imagefarm.ids import is_id
from imagefarm.store.batches import visible_batch
from imagefarm.store.jobs import channel_files_of
from imagefarm.store.models import ChannelFile
from imagefarm.text import Text
from scheduler.batches.review import picks
from scheduler.batches.review.contact_sheet import Shown, pictures_of
from scheduler.batches.review.picks import ImageRef, PickAction, PickRequest
from scheduler.batches.submit import launch_finals

routes = Routes(tag="batches")

MAX_PICKS = 5000
PickState = Literal["approved", "rejected", "rerolled", "open"]


class PickBody(Body):
    """The pick of one image. `reroll` renders it again with another seed; `clear` removes its pick."""

    image_id: Annotated[Text, Field(min_length=1, max_length=40)]
    pick: PickAction


class PicksBody(Body):
    """Picks of a batch's images."""

    picks: Annotated[list[PickBody], Field(min_length=1, max_length=MAX_PICKS)]


class BatchImage(ImageResponse):
    """An image of a batch, with its row and job."""

    job_id: str = Field(description="The batch's job; another job rendered a reused image")
    row: int | None
    name: str | None = Field(description="The file's name without extension")
    prompt: str
    labels: dict[str, str]
    replaced_by: str | None = Field(description="The job that renders this image again with another seed")
    from_image: str | None = Field(description="The image that it replaces, or the draft of this final")


class BatchImageList(ResponseModel):
    """A page of a batch's images, in the order of its jobs. `next_cursor` is null on the last page."""

    items: list[BatchImage]
    next_cursor: str | None


class BatchImageQuery(Query):
    """Which images to list."""

    pick: PickState | None = Field(None, description="Only images with this pick; open: without a pick")
    verdict: Literal["accept", "review", "reroll"] | None = Field(None, description="Only images with this verdict of the gate")
    limit: int = Field(50, ge=1, le=500)
    cursor: Annotated[str, Field(max_length=200)] | None = Field(None, description="`next_cursor` of the previous page")


@routes.get("/api/v1/batches/{batch_id}/images", scope=Scope.READ, response=BatchImageList)
def list_batch_images(app_context: AppContext, caller: Caller, batch_id: str, query: BatchImageQuery) -> Reply:
    """List the images of a batch.

    They are in the order of the rows, re-rolls last. Each has its pick and the quality gate's scores.
    """
    wanted = f"batch images {batch_id} {query.pick} {query.verdict}"
    after = read_cursor(query.cursor, wanted, form=_is_image_ref)
    with app_context.store.read() as session:
        visible_batch(session, batch_id, caller.tenant_filter)
        found = pictures_of(
            session,
            batch_id,
            after=None if after is None else _parse_image_ref(after),
            limit=query.limit + 1,
            pick=query.pick,
            verdict=query.verdict,
        )
        files = channel_files_of(session, {shown.image.id for shown in found})
    cursor = make_cursor(str(found[query.limit - 1].image_ref), wanted) if len(found) > query.limit else None
    base = base_url()
    items = [_response(shown, files.get(shown.image.id, ()), base) for shown in found[: query.limit]]
    return Reply(BatchImageList(items=items, next_cursor=cursor), headers=next_link(cursor))


@routes.post("/api/v1/batches/{batch_id}/picks", scope=Scope.SUBMIT, response=BatchResponse, errors=(404, 409, 429))
def pick_images(app_context: AppContext, caller: Caller, batch_id: str, body: PicksBody) -> BatchResponse:
    """Pick images of a batch.

    `approve`, `reject`, `reroll` (render it again with the next seed; the new image takes over its name) or `clear`. All picks
    are checked first: one invalid pick refuses the request. Repeating a request changes nothing.
    """
    requests = [PickRequest(position, each.image_id, each.pick) for position, each in enumerate(body.picks)]
    with app_context.store.read() as session:
        tenant = visible_batch(session, batch_id, caller.tenant_filter).tenant_id
    models = picks.pick(app_context.store, batch_id, tenant, requests, app_context.settings, by=caller.name, quota=caller.quota)
    for model in models:
        app_context.ticket_sender.notify_lane(model)
    return visible_batch_response(app_context, caller, batch_id)


@routes.post(
    "/api/v1/batches/{batch_id}/finals",
    scope=Scope.SUBMIT,
    response=BatchResponse,
    status=202,
    extra_statuses=(200,),
    errors=(404, 409, 429),
)
def make_batch_finals(app_context: AppContext, caller: Caller, batch_id: str, body: FinalsBody) -> Reply:
    """Render the approved images as finals.

    A new batch renders the same recipes with the same seeds in another size; its `drafts` names this batch. Existing images are
    reused. If the same finals were requested before, the response is 200 with that batch.
    """
    options = body.options(app_context.settings)
    finals_id, is_new = launch_finals(app_context, caller, options, batch_id=batch_id)
    response = visible_batch_response(app_context, caller, finals_id)
    return Reply(response, 202 if is_new else 200, {"Location": response.urls.self} if response.urls else {})


def _response(shown: Shown, files: Sequence[ChannelFile], base: str) -> BatchImage:
    return BatchImage(
        **dict(image_response(shown.image, base, pick=None if shown.pick is None else shown.pick.pick, files=files)),
        job_id=shown.job.id,
        row=shown.job.row,
        name=shown.name,
        prompt=shown.job.prompt,
        labels=shown.job.labels,
        replaced_by=None if shown.pick is None else shown.pick.replaced_by,
        from_image=shown.job.from_image,
    )


def _is_image_ref(text: str) -> bool:
    job_id, dot, index = text.partition(".")
    return bool(dot) and is_id(job_id, prefix="job") and index.isascii() and index.isdigit() and len(index) < 4


def _parse_image_ref(text: str) -> ImageRef:
    job_id, _, index = text.partition(".")
    return ImageRef(job_id, int(index))
