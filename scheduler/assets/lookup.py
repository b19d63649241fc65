"""Finds the job of an image file: by the hash of the file, by the hash of its pixels, or by its metadata."""

from __future__ import annotations

import hashlib
import io
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image as Picture
from sqlalchemy import ColumnElement

from imagefarm.imaging.labels import FARM
from imagefarm.imaging.metadata import read_metadata
from imagefarm.imaging.png import pixel_sha256
from imagefarm.store import Store
from imagefarm.store.images import newest_images
from imagefarm.store.models import Image

MAX_LOOKUP_BYTES = 64 * 1024 * 1024
MAX_IMAGES = 20
"""Images that one lookup returns."""
MAX_PIXELS = 4096 * 4096
"""Larger images are not decoded, because that would take more memory than this process may use."""


@dataclass(slots=True)
class LookupResult:
    """The result of a lookup. `images` are the farm's images that match the file; `by` is the kind of match."""

    sha256: str
    pixel_sha256: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    images: list[Image] = field(default_factory=list)
    by: Literal["file", "pixels", "metadata"] | None = None


def find_image(store: Store, data: bytes, tenant_id: str | None, *, decode_slots: AbstractContextManager[Any]) -> LookupResult:
    """Look up a file among the images of a tenant (None: of all tenants). Raises RequestError if the file is not an image.

    `decode_slots` is held while the image is decoded.
    """
    found = LookupResult(hashlib.sha256(data).hexdigest())
    with decode_slots:
        found.metadata = read_metadata(data)
        found.pixel_sha256 = _pixels(data)
    record = found.metadata.get(FARM, {})
    ways: list[tuple[Literal["file", "pixels", "metadata"], ColumnElement[bool]]] = [
        ("file", Image.sha256 == found.sha256),
        ("pixels", Image.pixel_sha256 == (found.pixel_sha256 or "")),
    ]
    job, index = record.get("job"), record.get("index")
    if isinstance(job, str) and isinstance(index, int) and 0 <= index < 2**31 and "\x00" not in job:
        ways.append(("metadata", (Image.job_id == job) & (Image.index == index)))
    with store.read() as session:
        for way, condition in ways:
            found.images = newest_images(session, tenant_id, MAX_IMAGES, condition)
            if found.images:
                found.by = way
                break
    return found


def _pixels(data: bytes) -> str | None:
    with Picture.open(io.BytesIO(data)) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            return None
        rgb = picture.convert("RGB")
        return pixel_sha256(rgb.width, rgb.height, rgb.tobytes())
