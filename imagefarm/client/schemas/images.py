"""Images that the farm rendered, and images that were uploaded."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from imagefarm.client.schemas.base import ResponseModel, RowError


class Image(ResponseModel):
    """One image of a job. `seed` is unsigned 64-bit."""

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
    """The decision about the image in its batch: approved, rejected or rerolled; None for open."""
    scores: dict[str, Any] | None = None
    """The scores and the verdict of the batch's quality gate."""
    ms: float | None = None
    """Milliseconds from claim to stored."""


class FoundImage(Image):
    """An image with the id of its job."""

    job_id: str


class BatchImage(Image):
    """An image of a batch with its row and index."""

    job_id: str
    row: int | None = None
    name: str | None = None
    prompt: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    replaced_by: str | None = None
    from_image: str | None = None


class ImageList(ResponseModel):
    """One page of images; `next_cursor` is None on the last."""

    items: list[FoundImage]
    next_cursor: str | None = None


class BatchImageList(ResponseModel):
    """One page of a batch's images; `next_cursor` is None on the last."""

    items: list[BatchImage]
    next_cursor: str | None = None


class LookupResult(ResponseModel):
    """The result of a lookup. `found_by` is file, pixels, metadata, or None if the farm did not render the file."""

    sha256: str
    found_by: str | None = None
    items: list[FoundImage] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)


class Asset(ResponseModel):
    """An uploaded image."""

    id: str
    name: str
    names: list[str] = Field(default_factory=list)
    """The names that refer to this asset. A name refers to the asset that was last uploaded under it."""
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
    """The result of a ZIP upload: the assets, the number of new ones, and the files that are not images."""

    items: list[Asset]
    stored: int
    errors: list[RowError] = Field(default_factory=list)
