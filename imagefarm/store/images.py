"""Reads of images: one image, and the newest images."""

from __future__ import annotations

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from imagefarm.errors import NotFound
from imagefarm.store.models import Image


def visible_image(session: Session, image_id: str, tenant_id: str | None) -> Image:
    """The image, if it belongs to this tenant (None: any tenant). Raises NotFound."""
    image = session.get(Image, image_id)
    if image is None or tenant_id not in {None, image.tenant_id}:
        raise NotFound(f"no image {image_id[:60]!r}")
    return image


def newest_images(session: Session, tenant_id: str | None, limit: int, *where: ColumnElement[bool]) -> list[Image]:
    """The newest images of a tenant (None: any tenant) that match the conditions."""
    if tenant_id is not None:
        where = (*where, Image.tenant_id == tenant_id)
    return list(session.scalars(select(Image).where(*where).order_by(Image.id.desc()).limit(limit)))
