"""Thumbnails: small WebP files, made once and cached in the data folder."""

from __future__ import annotations

import io
import secrets
from pathlib import Path

from api.http.context import AppContext
from imagefarm.logs import get_logger
from imagefarm.store.models import Image

log = get_logger(__name__)

SIZES = (64, 128, 256, 512)
QUALITY = 80


def thumbnail(app_context: AppContext, image: Image, side: int) -> bytes:
    """The image as WebP, its longer side at most `side` pixels, from the cache if it is there.

    Raises FileNotFoundError if the image's file is missing.
    """
    kept = app_context.settings.data_dir / "thumbs" / image.sha256[:2] / f"{image.sha256}-{side}.webp"
    try:
        return kept.read_bytes()
    except FileNotFoundError:
        data = app_context.outputs.read(image.storage_key)
    with app_context.decode_slots:
        data = _shrink(data, side)
    try:
        _keep(kept, data)
    except OSError as error:
        log.warning("thumbnail.write_failed", error=str(error))  # the next request makes it again
    return data


def _shrink(data: bytes, side: int) -> bytes:
    from PIL import Image as Picture

    with Picture.open(io.BytesIO(data)) as picture:
        picture.thumbnail((side, side), Picture.Resampling.LANCZOS)
        small = io.BytesIO()
        picture.convert("RGBA" if picture.has_transparency_data else "RGB").save(small, "WEBP", quality=QUALITY)
    return small.getvalue()


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    part.write_bytes(data)
    part.replace(path)
