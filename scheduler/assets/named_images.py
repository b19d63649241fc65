"""Images that a request or the rows of a table refer to: assets by id or name, paths in an uploaded ZIP, or URLs.

They are checked with the request, and stored only when it is accepted. Until then new images wait in a temporary file. Each has
its asset id already, because the id is part of the recipes.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from operator import methodcaller
from threading import Lock
from typing import Any, BinaryIO, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from imagefarm.errors import FieldError, InvalidRequest, Unavailable
from imagefarm.ids import is_id, new_id
from imagefarm.output_store import OutputStore
from imagefarm.recipe import JobRequest, Recipe, SubjectRequest
from imagefarm.settings import Settings
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append_many
from imagefarm.store.bulk_insert import insert_many
from imagefarm.store.models import Asset
from scheduler.assets.image_zip import PictureZip
from scheduler.assets.names import find_asset, set_names
from scheduler.assets.safe_fetch import fetch_image
from scheduler.assets.store import CheckedPicture, asset_key, asset_row, check_picture, mismatched, stored_event

IMAGE_FIELDS = tuple(name for name in ("init_image", "mask", "subject") if name in JobRequest.model_fields)
"""Recipe fields that refer to images."""
MAX_CONCURRENT_FETCHES = 8
"""URLs that are fetched in parallel."""
WINDOW = 64
"""Rows whose URLs are fetched ahead."""
MAX_URLS = 10_000
URLS_S = 600.0
"""Time limit for fetching all URLs of one table, in seconds."""
CHUNK = 100
"""Assets per transaction."""
MAX_CELL_SHOWN = 100
MAX_NAME = 255
STAND_IN = "asset_" + "0" * 26


class HasCells(Protocol):
    """A table row: its values by column."""

    @property
    def cells(self) -> Mapping[str, Any]: ...


R = TypeVar("R", bound=HasCells)


@dataclass(frozen=True, slots=True)
class _New:
    """A new image in the temporary file: its future asset row, and the position of its bytes."""

    row: dict[str, Any]
    event: dict[str, Any]
    start: int
    length: int


class NamedImages:
    """The images that one request of a tenant refers to. Close it after use; nothing is stored unless `save` is called."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        tenant_id: str,
        archive: BinaryIO | None = None,
        decode_slots: AbstractContextManager[Any] | None = None,
    ) -> None:
        """`archive` is the ZIP sent with the table; `decode_slots` is held while an image is decoded.

        Raises InvalidRequest for a ZIP that cannot be read.
        """
        self.store = store
        self.settings = settings
        self.tenant_id = tenant_id
        self.archive = None if archive is None else PictureZip(archive, settings, field="archive")
        self._decode_slots = decode_slots or nullcontext()
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._ids: dict[str, str | FieldError] = {}
        self._new: dict[str, _New] = {}
        self._names: dict[str, str] = {}
        """Asset ids by path in the ZIP, for asset names. A URL gives no name: its last part may also name another image."""
        self._sizes: dict[str, tuple[int, int]] = {}
        self._lock = Lock()
        self._bytes_left = settings.max_table_bytes
        self._urls = 0
        self._deadline: float | None = None

    def resolve(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """`fields` of a request with asset ids in place of references to images.

        Raises InvalidRequest naming each field whose image is not available.
        """
        found, errors = dict(fields), []

        def put(into: dict[str, Any], key: str, field: str) -> None:
            try:
                into[key] = self.asset_id(str(into[key]), field)
            except InvalidRequest as error:
                errors.extend(error.errors)

        if isinstance(subject := found.get("subject"), str):
            found["subject"] = subject = {"image": subject}
        if isinstance(subject, dict):
            found["subject"] = subject = dict(subject)
            if found.get("mask") is not None and found.get("init_image") is None and subject.get("mask") is None:
                subject["mask"] = found.pop("mask")
            if isinstance(subject.get("image"), str):
                put(subject, "image", "subject")
            if isinstance(subject.get("mask"), str) and subject["mask"] not in {"alpha", "white"}:
                put(subject, "mask", "mask")
        for name in ("init_image", "mask"):
            if name in IMAGE_FIELDS and found.get(name) is not None:
                put(found, name, name)
        if errors:
            raise InvalidRequest(errors)
        return found

    def check(self, recipe: Recipe) -> None:
        """Raise InvalidRequest if the sizes of a recipe's images do not match. The images must have been resolved here."""
        if errors := mismatched({field: self._size(asset_id) for field, asset_id in recipe.assets.items()}):
            raise InvalidRequest(errors)

    def _size(self, asset_id: str) -> tuple[int, int]:
        if asset_id not in self._sizes:
            with self.store.read() as session:
                row = session.execute(select(Asset.width, Asset.height).where(Asset.id == asset_id)).one()
            self._sizes[asset_id] = row.width, row.height
        return self._sizes[asset_id]

    def asset_id(self, name: str, field: str) -> str:
        """The id of the asset that `name` refers to. Raises InvalidRequest naming `field`."""
        found = self._ids.get(name)
        if found is None:
            found = self._ids[name] = self._found(name)
        if isinstance(found, FieldError):
            raise InvalidRequest([replace(found, field=field)])
        return found

    def prefetch(self, rows: Iterable[R]) -> Iterator[R]:
        """Yield the same rows, with their URLs fetched in parallel, `WINDOW` rows ahead."""
        source = iter(rows)
        while window := list(islice(source, WINDOW)):
            urls = {url: None for row in window for url in urls_in(row.cells) if url not in self._ids}
            if urls:
                with ThreadPoolExecutor(min(MAX_CONCURRENT_FETCHES, len(urls))) as pool:
                    self._ids.update(zip(urls, pool.map(self._found, urls), strict=True))
            yield from window

    def _found(self, name: str) -> str | FieldError:
        try:
            if _is_url(name):
                return self._from_url(name)
            if self.archive is not None and name in self.archive:
                found = self._checked(self.archive.read(name, field=PICTURE), name[-MAX_NAME:])
                self._names[name[-MAX_NAME:]] = found
                return found
        except InvalidRequest as error:
            if error.errors[0].field == "archive":
                raise  # the error is about the whole ZIP
            return error.errors[0]
        with self.store.read() as session:
            asset = find_asset(session, self.tenant_id, name)
        return asset or self._unknown(name)

    def _unknown(self, name: str) -> FieldError:
        shown = repr(name[:MAX_CELL_SHOWN])
        if is_id(name, "asset"):
            return FieldError(field=PICTURE, detail=f"you have no asset {shown}", remedy="upload the picture first")
        if self.archive is None:
            return FieldError(
                field=PICTURE,
                detail=f"you have no asset of the id or name {shown}",
                remedy="upload the picture first, or a ZIP as `archive` with the table",
            )
        like = self.archive.like(name)
        return FieldError(
            field=PICTURE,
            detail=f"neither the ZIP nor your assets have {shown}",
            remedy=f"perhaps you meant {like[:MAX_CELL_SHOWN]!r}" if like else "write the path as it is in the ZIP",
        )

    def _from_url(self, url: str) -> str:
        with self._lock:
            self._urls += 1
            if self._deadline is None:
                self._deadline = time.monotonic() + URLS_S
            left = self._deadline - time.monotonic()
            many = self._urls > MAX_URLS
        if many or left <= 0 or self._bytes_left <= 0:
            most = f"{MAX_URLS} URLs, {URLS_S:.0f} s or {self.settings.max_table_bytes} bytes"
            _refuse(f"is not fetched: one table may take {most}", "send the pictures in a ZIP, or the table in parts")
        data = fetch_image(url, self.settings, field=PICTURE, patience_s=left)
        with self._lock:
            self._bytes_left -= len(data)
        # without the query, which may contain a secret
        return self._checked(data, unquote(urlsplit(url).path).rpartition("/")[2][-MAX_NAME:] or "picture")

    def _checked(self, data: bytes, name: str) -> str:
        known = self._known(hashlib.sha256(data).hexdigest())
        if known is not None:
            return known  # stored or decoded before
        with self._decode_slots:
            picture = check_picture(data, self.settings, name=PICTURE)
        return self._known(picture.sha256) or self._add(picture, name)

    def _known(self, sha256: str) -> str | None:
        with self._lock:
            if (new := self._new.get(sha256)) is not None:
                return str(new.row["id"])
        with self.store.read() as session:
            return session.scalar(select(Asset.id).where(Asset.tenant_id == self.tenant_id, Asset.sha256 == sha256))

    def _add(self, picture: CheckedPicture, name: str) -> str:
        key = asset_key(self.tenant_id, picture)
        row = asset_row(
            new_id("asset"), key, picture, name="".join(c if c.isprintable() else "_" for c in name), tenant_id=self.tenant_id
        )
        with self._lock:
            if (new := self._new.get(picture.sha256)) is None:
                start = self._spool.seek(0, 2)
                self._spool.write(picture.data)
                new = self._new[picture.sha256] = _New(row, stored_event(picture), start, len(picture.data))
                self._sizes[row["id"]] = picture.width, picture.height
        return str(new.row["id"])

    @property
    def new(self) -> int:
        """Number of images that the tenant does not have yet."""
        return len(self._new)

    def save(self, outputs: OutputStore) -> None:
        """Store the new images, files before rows, and mark the known ones as used.

        Raises Unavailable if another request stored one of these images meanwhile.
        """
        waiting = iter(self._new.values())
        while some := list(islice(waiting, CHUNK)):
            for new in some:
                self._spool.seek(new.start)
                outputs.write(new.row["storage_key"], self._spool.read(new.length))
            self.store.run_with_retry(partial(self._save_rows, new=some))
        known = [found for found in self._ids.values() if isinstance(found, str)]
        for start in range(0, len(known), 500):
            wanted = update(Asset).where(Asset.id.in_(known[start : start + 500])).values(used_at=db_now())
            self.store.run_with_retry(methodcaller("execute", wanted))

        names = iter(self._names.items())
        while some_names := dict(islice(names, CHUNK)):
            self.store.run_with_retry(partial(set_names, tenant_id=self.tenant_id, names=some_names))

    def _save_rows(self, session: Session, new: list[_New]) -> None:
        rows = [each.row for each in new]
        have = set(
            session.scalars(
                select(Asset.sha256).where(Asset.tenant_id == self.tenant_id, Asset.sha256.in_([row["sha256"] for row in rows]))
            )
        )
        if have:
            raise Unavailable("another request has just stored one of these pictures; send the table again", retry_after=1.0)
        insert_many(session, Asset, rows, created_at=session.scalar(select(db_now())))
        append_many(session, [("asset.stored", each.row["id"], self.tenant_id, each.event) for each in new])

    def close(self) -> None:
        """Delete the images that were not saved."""
        self._spool.close()
        if self.archive is not None:
            self.archive.close()


PICTURE = "picture"
"""The field that an error names until the field of the image is known."""


def _is_url(name: str) -> bool:
    return "://" in name[:20]


def urls_in(cells: Mapping[str, Any]) -> Iterator[str]:
    """The URLs of images among the fields of a row or a request."""
    for name in IMAGE_FIELDS:
        cell = cells.get(name)
        for part in (cell, cell.get("image"), cell.get("mask")) if isinstance(cell, dict) else (cell,):
            if isinstance(part, str) and _is_url(part):
                yield part


def _refuse(detail: str, remedy: str) -> None:
    raise InvalidRequest([FieldError(field=PICTURE, detail=detail, remedy=remedy)])


def names_urls(request: JobRequest) -> bool:
    """Whether the request refers to images by URL."""
    return any(urls_in(_named(request)))


def with_stand_ins(request: JobRequest) -> JobRequest:
    """The request with a placeholder asset in place of each URL, so that its other fields can be checked."""

    def stand_in(value: Any) -> Any:
        return STAND_IN if isinstance(value, str) and "://" in value else value

    named = _named(request)
    standing = {name: stand_in(value) for name, value in named.items() if name != "subject"}
    if (subject := named.get("subject")) is not None:
        standing["subject"] = SubjectRequest.model_validate({name: stand_in(value) for name, value in subject.items()})
    return request.model_copy(update=standing)


def fetch_named(images: NamedImages, request: JobRequest, outputs: OutputStore) -> JobRequest:
    """The request with stored assets in place of URLs. Raises InvalidRequest naming the field; then nothing is stored."""
    found = images.resolve(_named(request))
    images.save(outputs)
    if found.get("subject") is not None:
        found["subject"] = SubjectRequest.model_validate(found["subject"])
    return request.model_copy(update=found)


def _named(request: JobRequest) -> dict[str, Any]:
    return request.model_dump(include={*map(str, IMAGE_FIELDS)}, exclude_none=True)
