"""Images: metadata with the audit record, the file and its thumbnail, and the lookup of a file's job."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from flask import Response, request
from pydantic import Field, model_validator
from sqlalchemy.orm import Session
from werkzeug.wsgi import wrap_file

from api.http.context import AppContext
from api.http.cursor import make_cursor, read_cursor
from api.http.links import base_url, next_link
from api.http.routes import Reply, Routes, whole_upload
from api.http.schemas import Query, ResponseModel, Time
from api.v1.images.thumbnails import SIZES, thumbnail
from api.v1.schemas.images import ImageResponse, image_response
from imagefarm.auth import Caller, Scope
from imagefarm.errors import FieldError, InvalidRequest, NotFound
from imagefarm.ids import is_id
from imagefarm.imaging.channels import ChannelName
from imagefarm.imaging.formats import MEDIA, extension
from imagefarm.recipe import Recipe
from imagefarm.store.images import newest_images, visible_image
from imagefarm.store.jobs import channel_files_of
from imagefarm.store.models import ChannelFile, Image, Job
from scheduler.assets.lookup import MAX_LOOKUP_BYTES, find_image
from scheduler.batches.review.picks import ImageRef, picks_of

routes = Routes(tag="images")

FOREVER = "private, max-age=31536000, immutable"
"""An image id names one file forever. The cache is private, because only the image's tenant may keep it."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FoundImage(ImageResponse):
    """An image with its job."""

    job_id: str
    job_url: str
    created_at: Time


class ImageDetail(FoundImage):
    """An image with its recipe and audit record."""

    recipe: Recipe
    recipe_hash: str
    labels: dict[str, str]
    custom_id: str | None
    batch_id: str | None
    ms: float = Field(description="Milliseconds from the claim to the stored file")
    audit: dict[str, Any] = Field(description="The conditions of the render: weights, versions, device, step shapes, timings")


class ImageList(ResponseModel):
    """A page of images, newest first."""

    items: list[FoundImage]
    next_cursor: str | None


class ImageQuery(Query):
    """Which images to list. A hash selects all images that have it."""

    sha256: Sha256 | None = Field(None, description="SHA-256 of the file")
    pixel_sha256: Sha256 | None = Field(None, description="SHA-256 of the decoded pixels")
    limit: int = Field(50, ge=1, le=200)
    cursor: Annotated[str, Field(max_length=200)] | None = None

    @model_validator(mode="after")
    def _one_hash(self) -> ImageQuery:
        if self.sha256 and self.pixel_sha256:
            raise ValueError("has both sha256 and pixel_sha256; send one of them")
        return self


class FileQuery(Query):
    """Which version of the image to get."""

    channel: ChannelName | None = Field(None, description="The file for this channel of its batch")

    thumb: Literal["64", "128", "256", "512"] | None = Field(None, description="Longest side of a small WebP instead of the file")


class LookupResponse(ResponseModel):
    """The result of a lookup."""

    sha256: str
    pixel_sha256: str | None = Field(description="null for an image too large to decode")
    metadata: dict[str, Any] = Field(description="The file's own metadata, which anybody can forge")
    items: list[FoundImage] = Field(description="Matching images of the farm, surest match first")
    found_by: Literal["file", "pixels", "metadata"] | None


@routes.get("/api/v1/images", scope=Scope.READ, response=ImageList)
def list_images(app_context: AppContext, caller: Caller, query: ImageQuery) -> Reply:
    """List images, newest first, optionally only those with a hash."""
    asked = f"images {caller.tenant_filter} {query.sha256} {query.pixel_sha256}"
    before = read_cursor(query.cursor, asked, form=partial(is_id, prefix="img"))
    where = [Image.id < before] if before is not None else []
    if query.sha256 is not None:
        where.append(Image.sha256 == query.sha256)
    if query.pixel_sha256 is not None:
        where.append(Image.pixel_sha256 == query.pixel_sha256)
    with app_context.store.read() as session:
        rows = newest_images(session, caller.tenant_filter, query.limit + 1, *where)
        items = found_images(session, rows[: query.limit], base_url())
    cursor = make_cursor(rows[query.limit - 1].id, asked) if len(rows) > query.limit else None
    return Reply(ImageList(items=items, next_cursor=cursor), headers=next_link(cursor))


@routes.get("/api/v1/images/{image_id}", scope=Scope.READ, response=ImageDetail)
def get_image(app_context: AppContext, caller: Caller, image_id: str) -> ImageDetail:
    """Get an image's metadata, with its recipe and audit record."""
    with app_context.store.read() as session:
        image = visible_image(session, image_id, caller.tenant_filter)
        job = session.get_one(Job, image.job_id)
        [found] = found_images(session, [image], base_url())
    return ImageDetail(
        **dict(found),
        recipe=Recipe.model_validate(job.recipe),
        recipe_hash=job.recipe_hash,
        labels=job.labels,
        custom_id=job.custom_id,
        batch_id=job.batch_id,
        ms=image.ms,
        audit=image.audit,
    )


@routes.get("/api/v1/images/{image_id}/file", scope=Scope.READ, media="image/*", extra_statuses=(206, 304), errors=(416,))
def get_image_file(app_context: AppContext, caller: Caller, image_id: str, query: FileQuery) -> Response:
    """Get an image's file.

    The ETag is the file's SHA-256. Range requests are supported. `thumb` returns a small WebP instead, for lists and pages.
    """
    if query.channel is not None and query.thumb is not None:
        detail = "cannot be combined with a channel"
        raise InvalidRequest([FieldError(field="thumb", detail=detail, remedy="send one of them")])
    with app_context.store.read() as session:
        image = visible_image(session, image_id, caller.tenant_filter)
        kept = image if query.channel is None else session.get(ChannelFile, (image.id, query.channel))
    if kept is None:
        raise NotFound(f"{image_id} has no file for channel {query.channel}")
    try:
        if query.thumb is not None:
            return _thumb(app_context, image, int(query.thumb))
        file = app_context.outputs.open(kept.storage_key)
    except FileNotFoundError:
        raise NotFound(f"the file of {image_id} is missing from storage", code="file_missing") from None
    response = Response(wrap_file(request.environ, file), direct_passthrough=True)
    response.content_type = MEDIA.get(kept.format, "application/octet-stream")
    response.content_length = kept.bytes
    stem = image.id if query.channel is None else f"{image.id}-{query.channel}"
    response.headers["Content-Disposition"] = f'inline; filename="{stem}.{extension(kept.format)}"'
    return _conditional(response, kept.sha256, kept.bytes)


@routes.post(
    "/api/v1/images/lookup",
    scope=Scope.READ,
    response=LookupResponse,
    consumes=("multipart/form-data", "image/png", "image/jpeg", "image/webp", "application/octet-stream"),
    max_body=lambda settings: max(settings.max_body_bytes, MAX_LOOKUP_BYTES),
)
def lookup_image(app_context: AppContext, caller: Caller) -> LookupResponse:
    """Find the job of an image file.

    Send the file as the body, or as the part `file` of a form. The farm looks for the hash of the file, then for the hash of its
    pixels (which survive a lossless change of format), then for the job that the metadata names.
    """
    data = whole_upload("file")
    found = find_image(app_context.store, data, caller.tenant_filter, decode_slots=app_context.decode_slots)
    with app_context.store.read() as session:
        items = found_images(session, found.images, base_url())
    return LookupResponse(
        sha256=found.sha256,
        pixel_sha256=found.pixel_sha256,
        metadata=found.metadata,
        items=items,
        found_by=found.by,
    )


def found_images(session: Session, images: Sequence[Image], base: str) -> list[FoundImage]:
    """Convert images to JSON, each with its job and its pick."""
    picks = picks_of(session, {image.job_id for image in images})
    picked = {ref: decided.pick for ref, decided in picks.items()}
    files = channel_files_of(session, {image.id for image in images})
    return [
        FoundImage(
            **dict(image_response(image, base, picked.get(ImageRef(image.job_id, image.index)), files.get(image.id, ()))),
            job_id=image.job_id,
            job_url=f"{base}/api/v1/jobs/{image.job_id}",
            created_at=image.created_at,
        )
        for image in images
    ]


def _thumb(app_context: AppContext, image: Image, side: int) -> Response:
    assert side in SIZES
    data = thumbnail(app_context, image, side)
    return _conditional(Response(data, content_type="image/webp"), f"{image.sha256}-{side}", len(data))


def _conditional(response: Response, etag: str, length: int) -> Response:
    response.set_etag(etag)
    response.headers["Cache-Control"] = FOREVER
    response.make_conditional(request.environ, accept_ranges=True, complete_length=length)
    return response
