"""Picks: look through a batch's pictures, decide about them, and have the approved ones rendered finally."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from api.http.cursor import make_cursor, read_cursor
from api.http.routes import AppContext, Caller, Reply, Routes, Scope
from api.http.schemas import Body, Query, ResponseModel
from api.v1.batches.routes import get_batch, tenant_of_batch, visible_batch
from api.v1.batches.schemas import BatchResponse
from api.v1.jobs.routes import next_link
from api.v1.jobs.schemas import ImageResponse, base_url, image_response
from imagefarm.ids import is_id
from imagefarm.imaging.channels import MAX_CHANNELS, Channel, ChannelName, presets, resolve
from imagefarm.recipe import Side, Steps, Upscale
from imagefarm.store.jobs import channel_files_of
from imagefarm.store.models import ChannelFile
from imagefarm.text import Text
from scheduler.batches.review import picks
from scheduler.batches.review.contact_sheet import Shown, pictures_of
from scheduler.batches.review.finals import FinalsOptions
from scheduler.batches.review.picks import ImageRef, PickAction, PickRequest
from scheduler.batches.submit import launch_finals
from scheduler.batches.table.delivery_target import DeliveryTarget

routes = Routes(tag="batches")

MAX_PICKS = 5000
PickState = Literal["approved", "rejected", "rerolled", "open"]


class PickBody(Body):
    """A decision about one picture: `reroll` renders it again with another seed, `clear` makes it open again."""

    image_id: Annotated[Text, Field(min_length=1, max_length=40)]
    pick: PickAction


class PicksBody(Body):
    """Decisions about pictures of a batch."""

    picks: Annotated[list[PickBody], Field(min_length=1, max_length=MAX_PICKS)]


class FinalsBody(Body):
    """What finals have instead of what their drafts had; what is left out stays as it was."""

    width: Side
    height: Side
    steps: Steps | None = None
    upscale: Upscale | None = None
    name: Annotated[Text, Field(min_length=1, max_length=255)] | None = Field(None, description="Name of the new batch")
    channels: Annotated[list[ChannelName | Channel], Field(max_length=MAX_CHANNELS)] | None = Field(
        None, description="Forms in which each picture is delivered; left out: those of the drafts"
    )
    deliver: DeliveryTarget | None = Field(None, description="The bucket and folder that its files go to when it is done")


class BatchImage(ImageResponse):
    """A picture of a batch with its place in it."""

    job_id: str = Field(description="The job of this batch; where pictures are reused, another job rendered it")
    row: int | None
    name: str | None = Field(description="Its file's name without extension")
    prompt: str
    labels: dict[str, str]
    replaced_by: str | None = Field(description="The job that renders it with another seed")
    from_image: str | None = Field(description="The picture that it replaces, or the draft that it renders finally")


class BatchImageList(ResponseModel):
    """A page of a batch's pictures, in the order of its jobs. `next_cursor` is null on the last page."""

    items: list[BatchImage]
    next_cursor: str | None


class BatchImageQuery(Query):
    """Which pictures to list."""

    pick: PickState | None = Field(None, description="Only those that were decided so; open: not decided yet")
    verdict: Literal["accept", "review", "reroll"] | None = Field(None, description="Only those of which the gate said so")
    limit: int = Field(50, ge=1, le=500)
    cursor: Annotated[str, Field(max_length=200)] | None = Field(None, description="`next_cursor` of the page before")


@routes.get("/api/v1/batches/{batch_id}/images", scope=Scope.READ, response=BatchImageList)
def list_batch_images(app_context: AppContext, caller: Caller, batch_id: str, query: BatchImageQuery) -> Reply:
    """List the pictures of a batch.

    In the order of its rows, re-rolls last, each with what was decided of it and what the gate measured.
    """
    wanted = f"batch images {batch_id} {query.pick} {query.verdict}"
    after = read_cursor(query.cursor, wanted, form=_is_image_ref)
    with app_context.store.read() as session:
        visible_batch(session, caller, batch_id)
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
    """Decide about pictures of a batch.

    `approve`, `reject`, `reroll` (render it again with the next seed: the new picture takes over its name) or `clear`. All
    are checked first: one that cannot be decided so refuses the request. Repeating a request changes nothing.
    """
    requests = [PickRequest(position, each.image_id, each.pick) for position, each in enumerate(body.picks)]
    tenant = tenant_of_batch(app_context, caller, batch_id)
    models = picks.pick(app_context.store, batch_id, tenant, requests, app_context.settings, by=caller.name, quota=caller.quota)
    for model in models:
        app_context.ticket_sender.notify_lane(model)
    return get_batch(app_context, caller, batch_id)


@routes.post(
    "/api/v1/batches/{batch_id}/finals",
    scope=Scope.SUBMIT,
    response=BatchResponse,
    status=202,
    extra_statuses=(200,),
    errors=(404, 409, 429),
)
def make_batch_finals(app_context: AppContext, caller: Caller, batch_id: str, body: FinalsBody) -> Reply:
    """Render the approved pictures finally.

    The same recipes with the same seeds in another size, as a new batch (its `drafts` names this one). What exists is taken
    instead of rendered again; where just these finals were asked for before, the answer is 200 with that batch.
    """
    tenant = tenant_of_batch(app_context, caller, batch_id)
    finals_options = FinalsOptions(
        width=body.width,
        height=body.height,
        steps=body.steps,
        upscale=None if body.upscale is None else body.upscale.model_dump(mode="json"),
        name=body.name,
        deliver=body.deliver,
        channels=None if body.channels is None else resolve(body.channels, presets(app_context.settings.channels_file)),
    )
    finals_id, is_new = launch_finals(app_context, caller, finals_options, batch_id=batch_id, tenant_id=tenant)
    response = get_batch(app_context, caller, finals_id)
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
