"""Images that the farm rendered, and images that were uploaded."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from imagefarm.client.schemas.base import ResponseModel, RowError


class Image(ResponseModel):
    """One picture of a job. `seed` is unsigned 64-bit."""

    id: str
    index: int
    seed: int
    width: int
    height: int
    format: str = "png"
    sha256: str
    pixel_sha256: str
    bytes: int
    url: str
    pick: str | None = None
    """The decision about it in its batch: approved, rejected, rerolled."""
    scores: dict[str, Any] | None = None
    """The scores of the batch's quality gate, and its verdict."""
    ms: float | None = None
    """Milliseconds from claim to stored."""


class FoundImage(Image):
    """A picture with the id of its job."""

    job_id: str


class BatchImage(Image):
    """A picture of a batch with its place in it."""

    job_id: str
    row: int | None = None
    name: str | None = None
    prompt: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    replaced_by: str | None = None
    from_image: str | None = None


class ImageList(ResponseModel):
    """One page of pictures; `next_cursor` is None on the last."""

    items: list[FoundImage]
    next_cursor: str | None = None


class BatchImageList(ResponseModel):
    """One page of a batch's pictures; `next_cursor` is None on the last."""

    items: list[BatchImage]
    next_cursor: str | None = None


class LookupResult(ResponseModel):
    """The result of a lookup. `found_by` is file, pixels, metadata, or None if the farm did not render the file."""

    sha256: str
    found_by: str | None = None
    items: list[FoundImage] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)


class Asset(ResponseModel):
    """A picture that was sent in."""

    id: str
    name: str
    names: list[str] = Field(default_factory=list)
    """The names that mean it now; a name means the picture that was sent under it last."""
    sha256: str
    format: str
    width: int
    height: int
    bytes: int
    created_at: datetime
    url: str


class AssetList(ResponseModel):
    """One page of assets; `next_cursor` is None on the last."""

    items: list[Asset]
    next_cursor: str | None = None


class Uploaded(ResponseModel):
    """The result of a ZIP upload: the assets, how many are new, and the files that are not pictures."""

    items: list[Asset]
    stored: int
    errors: list[RowError] = Field(default_factory=list)
