"""Assets: pictures that are sent in to begin from. Each is stored once per tenant, upright, and bounded before it is decoded."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from PIL import Image as Picture
from PIL import ImageOps, UnidentifiedImageError
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.ids import is_id, new_id
from imagefarm.outputs import Outputs
from imagefarm.settings import Settings
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append
from imagefarm.store.models import Asset
from imagefarm.text import check_text

FORMATS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
MAX_FILES = 20_000
"""Files of one ZIP."""
ORIENTATION = 0x0112
SKIPPED = ("__MACOSX/", ".DS_Store", "Thumbs.db")
"""What systems put into a ZIP unasked."""


@dataclass(frozen=True, slots=True)
class CheckedPicture:
    """A picture that was decoded whole: its bytes to store, upright."""

    data: bytes
    format: str
    width: int
    height: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def check_picture(data: bytes, settings: Settings, *, name: str = "file") -> CheckedPicture:
    """Decode a picture that came from outside; raise InvalidRequest naming `name` for what is none, or is too large.

    One whose EXIF says that it lies on its side is turned and stored as PNG; any other is stored as it came.
    """
    if len(data) > settings.max_asset_bytes:
        _refuse(name, f"has more than {settings.max_asset_bytes} bytes", "send a smaller file")
    try:
        with Picture.open(io.BytesIO(data), formats=list(FORMATS)) as picture:
            kind, (width, height) = str(picture.format), picture.size
            if width * height > settings.max_asset_pixels:  # before decoding: 17 kB of PNG can be 144 megapixels
                _refuse(name, f"has {width}x{height} pixels, more than {settings.max_asset_pixels}", "send a smaller picture")
            if getattr(picture, "n_frames", 1) > 1:
                _refuse(name, "is an animation", "send a single picture")
            picture.load()
            if picture.getexif().get(ORIENTATION, 1) == 1:
                return CheckedPicture(data, FORMATS[kind], width, height)
            upright = ImageOps.exif_transpose(picture)
            buffer = io.BytesIO()
            upright.convert("RGBA" if "A" in upright.getbands() else "RGB").save(buffer, "PNG")
            return CheckedPicture(buffer.getvalue(), "png", *upright.size)
    except UnidentifiedImageError:
        _refuse(name, "is not a PNG, JPEG or WebP picture", "convert it")
    except (OSError, ValueError, SyntaxError, MemoryError, Picture.DecompressionBombError) as error:
        _refuse(name, f"cannot be decoded: {str(error)[:200]}", "save it anew")


def keep_asset(store: Store, outputs: Outputs, picture: CheckedPicture, *, name: str, tenant_id: str) -> tuple[Asset, bool]:
    """Store a picture for a tenant; return its asset, and whether it is new. The file is there before the row is."""
    sha256 = picture.sha256

    def known(session: Session) -> Asset | None:
        return session.scalars(select(Asset).where(Asset.tenant_id == tenant_id, Asset.sha256 == sha256)).first()

    with store.read() as session:
        if (found := known(session)) is not None:
            return found, False
    key = f"assets/{sha256[:2]}/{tenant_id}/{sha256}.{picture.format}"
    outputs.write(key, picture.data)

    def add(session: Session) -> tuple[Asset, bool]:
        if (found := known(session)) is not None:  # another request was quicker; the file is the same
            return found, False
        asset_id = new_id("asset")
        session.execute(
            insert(Asset).values(
                id=asset_id,
                tenant_id=tenant_id,
                sha256=sha256,
                storage_key=key,
                name=name,
                format=picture.format,
                width=picture.width,
                height=picture.height,
                bytes=len(picture.data),
                created_at=db_now(),
            )
        )
        append(session, "asset.stored", asset_id, tenant_id, {"sha256": sha256})
        return session.get_one(Asset, asset_id), True

    return store.retrying(add)


def find_asset(session: Session, tenant_id: str, name: str) -> str | None:
    """The id of a tenant's asset, by its id or by the name it was sent in with (the newest of that name)."""
    if is_id(name, "asset"):
        return session.scalar(select(Asset.id).where(Asset.id == name, Asset.tenant_id == tenant_id))
    return session.scalar(
        select(Asset.id).where(Asset.tenant_id == tenant_id, Asset.name == name).order_by(Asset.id.desc()).limit(1)
    )


def zip_files(file: BinaryIO, settings: Settings) -> Iterator[tuple[str, bytes | FieldError]]:
    """The files of a ZIP with their paths in it, one in memory at a time; a file too large is an error of its own.

    Nothing is ever written under these names. Raises InvalidRequest for what is no ZIP, or one too large as a whole.
    """
    left = settings.max_table_bytes
    try:
        with zipfile.ZipFile(file) as archive:
            members = [info for info in archive.infolist() if not info.is_dir() and not _is_skipped(info.filename)]
            if len(members) > MAX_FILES:
                _refuse("file", f"has {len(members)} files", f"send at most {MAX_FILES} at once")
            for info in members:
                if info.flag_bits & 1 or stat.S_ISLNK(info.external_attr >> 16):
                    yield info.filename, _error(info.filename, "is encrypted or a link", "send plain files")
                    continue
                with archive.open(info) as member:
                    data = member.read(settings.max_asset_bytes + 1)  # what it says of its size is not believed
                left -= len(data)
                if left < 0:
                    _refuse("file", f"unpacks to more than {settings.max_table_bytes} bytes", "send it in parts")
                yield info.filename, data
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, OSError) as error:
        _refuse("file", f"cannot be read as a ZIP: {str(error)[:200]}", "pack it anew")


def asset_name(name: str) -> str:
    """`name` as an asset may have it. Raises InvalidRequest."""
    try:
        check_text(name)
    except ValueError as error:
        _refuse("name", str(error), "rename the file")
    if not name or len(name) > 255:
        _refuse("name", "has not 1 to 255 characters", "rename the file")
    return name


def _is_skipped(name: str) -> bool:
    return name.startswith(SKIPPED) or name.rsplit("/", 1)[-1] in SKIPPED


def _error(name: str, detail: str, remedy: str) -> FieldError:
    return FieldError(field=name[:100].encode("utf-8", "backslashreplace").decode(), detail=detail, remedy=remedy)


def _refuse(field: str, detail: str, remedy: str) -> NoReturn:
    raise InvalidRequest([_error(field, detail, remedy)])
