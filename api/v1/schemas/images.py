"""Images as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from api.http.schemas import ResponseModel
from imagefarm.recipe import Seed
from imagefarm.store.models import ChannelFile, Image


class ChannelResponse(ResponseModel):
    """The file of an image for one channel of its batch."""

    channel: str
    format: str
    width: int
    height: int
    bytes: int
    sha256: str
    url: str


class ImageResponse(ResponseModel):
    """One image of a job. The hashes are SHA-256: of the file, and of its decoded pixels."""

    id: str
    index: int
    seed: Seed
    width: int
    height: int
    format: str
    sha256: str
    pixel_sha256: str
    bytes: int
    url: str
    thumb_url: str
    pick: Literal["approved", "rejected", "rerolled"] | None = Field(description="Its pick in its batch")
    scores: dict[str, Any] | None = Field(description="The scores of the batch's quality gate, and its `verdict`")
    channels: list[ChannelResponse] = Field(description="Files for the channels of its batch")


def image_response(image: Image, base: str, pick: str | None = None, files: Sequence[ChannelFile] = ()) -> ImageResponse:
    """Convert an image to JSON. `pick` is its pick, `files` are its channel files."""
    url = f"{base}/api/v1/images/{image.id}/file"
    return ImageResponse(
        id=image.id,
        index=image.index,
        seed=int(image.seed),
        width=image.width,
        height=image.height,
        format=image.format,
        sha256=image.sha256,
        pixel_sha256=image.pixel_sha256,
        bytes=image.bytes,
        url=url,
        thumb_url=f"{url}?thumb=256",
        pick=pick,
        scores=image.scores,
        channels=[
            ChannelResponse(
                channel=file.channel,
                format=file.format,
                width=file.width,
                height=file.height,
                bytes=file.bytes,
                sha256=file.sha256,
                url=f"{url}?channel={file.channel}",
            )
            for file in files
        ],
    )
