"""Assets: uploaded input images. Each is stored once per tenant, upright, and its size is checked before it is decoded."""

from __future__ import annotations

import hashlib
import io
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NoReturn

from PIL import Image as Picture
from PIL import UnidentifiedImageError
from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.ids import is_id, new_id
from imagefarm.imaging.input_image import MULTI_PICTURE, normalised, png_in_srgb
from imagefarm.output_store import OutputStore
from imagefarm.recipe import Recipe
from imagefarm.settings import Settings
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append
from imagefarm.store.bulk_insert import insert_many
from imagefarm.store.models import Asset, AssetUse
from imagefarm.text import check_text
from scheduler.assets.names import set_names

FORMATS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", MULTI_PICTURE: "jpg"}


@dataclass(frozen=True, slots=True)
class CheckedPicture:
    """An image that was completely decoded: its bytes to store, upright and in sRGB."""

    data: bytes
    format: str
    width: int
    height: int
    changes: tuple[str, ...] = ()
    """The conversions that were applied, for the audit."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def check_picture(data: bytes, settings: Settings, *, name: str = "file") -> CheckedPicture:
    """Decode an uploaded image. Raises InvalidRequest naming `name` if the data is not an image, or the image is too large.

    An image that is stored rotated, has more than 8 bits of grey, or has another colour space than sRGB is converted to PNG. Any
    other is stored unchanged.
    """
    if len(data) > settings.max_asset_bytes:
        _refuse(name, f"has more than {settings.max_asset_bytes} bytes", "send a smaller file")
    try:
        with Picture.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"]) as picture:
            kind, (width, height) = str(picture.format), picture.size
            if width * height > settings.max_asset_pixels:  # before decoding: 17 kB of PNG can be 144 megapixels
                _refuse(name, f"has {width}x{height} pixels, more than {settings.max_asset_pixels}", "send a smaller picture")
            if getattr(picture, "n_frames", 1) > 1 and kind != MULTI_PICTURE:
                _refuse(name, "is an animation", "send a single picture")
            picture.load()
            found = normalised(picture)
            if not found.is_changed:
                return CheckedPicture(data, FORMATS[kind], width, height, found.notes)
            return CheckedPicture(png_in_srgb(found.image), "png", *found.image.size, found.notes)
    except UnidentifiedImageError:
        _refuse(name, "is not a PNG, JPEG or WebP picture", "convert it")
    except (OSError, ValueError, SyntaxError, MemoryError, Picture.DecompressionBombError) as error:
        _refuse(name, f"cannot be decoded: {str(error)[:200]}", "save it again")


def keep_asset(store: Store, outputs: OutputStore, picture: CheckedPicture, *, name: str, tenant_id: str) -> tuple[Asset, bool]:
    """Store an image for a tenant; return its asset, and whether it is new. The file is written before the row."""
    sha256 = picture.sha256

    def known(session: Session) -> Asset | None:
        if (found := seen_again(session, tenant_id, sha256)) is not None:
            set_names(session, tenant_id, {name: found.id})
        return found

    if (found := store.run_with_retry(known)) is not None:
        mend_file(outputs, found, picture.data)
        return found, False
    key = asset_key(tenant_id, picture)
    outputs.write(key, picture.data)

    def add(session: Session) -> tuple[Asset, bool]:
        if (found := known(session)) is not None:  # another request stored it first; the file is the same
            return found, False
        row = asset_row(new_id("asset"), key, picture, name=name, tenant_id=tenant_id)
        session.execute(insert(Asset).values(**row, created_at=db_now()))
        set_names(session, tenant_id, {name: row["id"]})
        append(session, "asset.stored", row["id"], tenant_id, stored_event(picture))
        return session.get_one(Asset, row["id"]), True

    return store.run_with_retry(add)


def store_picture(
    store: Store,
    outputs: OutputStore,
    settings: Settings,
    data: bytes,
    *,
    name: str,
    tenant_id: str,
    decode_slots: AbstractContextManager[Any],
) -> tuple[Asset, bool]:
    """Check and store an uploaded image; return its asset, and whether it is new.

    `decode_slots` is held while the image is decoded. Raises InvalidRequest if the data is not an image.
    """
    name = asset_name(name)
    with decode_slots:
        picture = check_picture(data, settings, name=name)
    return keep_asset(store, outputs, picture, name=name, tenant_id=tenant_id)


def stored_event(picture: CheckedPicture) -> dict[str, Any]:
    """The audit data of a new asset."""
    return {"sha256": picture.sha256} | ({"changes": list(picture.changes)} if picture.changes else {})


def asset_key(tenant_id: str, picture: CheckedPicture) -> str:
    """The storage key of a tenant's image."""
    sha256 = picture.sha256
    return f"assets/{sha256[:2]}/{tenant_id}/{sha256}.{picture.format}"


def asset_row(asset_id: str, key: str, picture: CheckedPicture, *, name: str, tenant_id: str) -> dict[str, Any]:
    """The row of an asset, without its creation time."""
    return {
        "id": asset_id,
        "tenant_id": tenant_id,
        "sha256": picture.sha256,
        "storage_key": key,
        "name": name,
        "format": picture.format,
        "width": picture.width,
        "height": picture.height,
        "bytes": len(picture.data),
    }


def seen_again(session: Session, tenant_id: str, sha256: str) -> Asset | None:
    """Mark the tenant's asset with these bytes as used now, so that it is not collected, and return it; None if there is none."""
    statement = update(Asset).where(Asset.tenant_id == tenant_id, Asset.sha256 == sha256).values(used_at=db_now())
    return session.scalars(statement.returning(Asset)).first()


def mend_file(outputs: OutputStore, asset: Asset, data: bytes) -> None:
    """Write an asset's file again if it is missing."""
    try:
        outputs.open(asset.storage_key).close()
    except FileNotFoundError:
        outputs.write(asset.storage_key, data)


def check_references(session: Session, recipe: Recipe, can_see: Callable[[str], bool]) -> None:
    """Raise InvalidRequest, naming the field, unless every asset of a recipe exists, is visible, and has a matching size."""
    errors: list[FieldError] = []
    found: dict[str, Asset] = {}
    for field, asset_id in recipe.assets.items():
        asset = session.get(Asset, asset_id)
        if asset is None or not can_see(asset.tenant_id):
            errors.append(FieldError(field=field, detail="there is no such asset", remedy="upload it first"))
        else:
            found[field] = asset
    errors += mismatched({field: (asset.width, asset.height) for field, asset in found.items()})
    if errors:
        raise InvalidRequest(errors)


def mismatched(sizes: Mapping[str, tuple[int, int]]) -> list[FieldError]:
    """Errors for the sizes (width, height) of a recipe's assets that do not match. The keys are field names."""
    errors = []
    for field, other in (("mask", "init_image"), ("subject.mask", "subject.image")):
        if field in sizes and other in sizes and sizes[field] != sizes[other]:
            (width, height), (wide, high) = sizes[field], sizes[other]
            detail = f"has {width}x{height} pixels, its {other} {wide}x{high}"
            errors.append(FieldError(field=field, detail=detail, remedy="send a mask of the picture's size"))
    return errors


def assets_of(recipe: Mapping[str, Any]) -> set[str]:
    """The ids of all assets that a stored recipe uses."""
    subject = recipe.get("subject") or {}
    named = (recipe.get("init_image"), recipe.get("mask"), subject.get("image"), subject.get("mask"))
    return {name for name in named if name is not None and is_id(name, "asset")}


def uses_of(job_id: str, recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that record which assets a new job with this stored recipe uses."""
    return [{"asset_id": asset, "job_id": job_id} for asset in sorted(assets_of(recipe))]


def record_use(session: Session, jobs: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Record which assets these new jobs (id, recipe) use, in the transaction that writes the jobs."""
    insert_many(session, AssetUse, [use for job_id, recipe in jobs for use in uses_of(job_id, recipe)])


def asset_name(name: str) -> str:
    """`name` as it is stored for an asset. Raises InvalidRequest if it cannot be."""
    try:
        check_text(name)
    except ValueError as error:
        _refuse("name", str(error), "rename the file")
    if not name or len(name) > 255:
        _refuse("name", "must have 1 to 255 characters", "rename the file")
    return unicodedata.normalize("NFC", name)


def _error(name: str, detail: str, remedy: str) -> FieldError:
    return FieldError(field=name[:100].encode("utf-8", "backslashreplace").decode(), detail=detail, remedy=remedy)


def _refuse(field: str, detail: str, remedy: str) -> NoReturn:
    raise InvalidRequest([_error(field, detail, remedy)])
