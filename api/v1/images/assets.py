"""Assets: upload an image or a ZIP of images, list assets, get one or its file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from typing import Annotated, BinaryIO

from flask import Response, request, send_file
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.exceptions import RequestEntityTooLarge

from api.http.cursor import make_cursor, read_cursor
from api.http.links import base_url, next_link
from api.http.routes import AppContext, Caller, Reply, Routes, Scope, too_large
from api.http.schemas import Query, ResponseModel, Time
from api.v1.schemas.row_errors import RowError, row_errors
from imagefarm.errors import FieldError, InvalidRequest, NotFound
from imagefarm.ids import is_id
from imagefarm.imaging.formats import MEDIA
from imagefarm.store.models import Asset, AssetName
from imagefarm.text import Text
from scheduler.assets.image_zip import PictureZip, plain_path
from scheduler.assets.names import names_of
from scheduler.assets.store import store_picture

routes = Routes(tag="assets")

ZIP = "application/zip"
CONSUMES = ("multipart/form-data", ZIP, "image/png", "image/jpeg", "image/webp")
CHUNK_BYTES = 256 * 1024
MAX_ERRORS = 100


class AssetResponse(ResponseModel):
    """An uploaded image. A recipe names it as `init_image`, a table by its id or name."""

    id: str
    name: str = Field(description="Under which it was sent in: in the answer to an upload this time, elsewhere the first time")
    names: list[str] = Field(description="The names that mean it now; a name means the picture that was sent under it last")
    sha256: str
    format: str
    width: int
    height: int
    bytes: int
    created_at: Time
    url: str


class AssetList(ResponseModel):
    """A page of assets, newest first. `next_cursor` is null on the last page."""

    items: list[AssetResponse]
    next_cursor: str | None


class AssetsResponse(ResponseModel):
    """The assets of an upload. An image that the tenant has already is not stored again; its first asset is returned."""

    items: list[AssetResponse]
    stored: int = Field(description="The number of new assets")
    errors: list[RowError] = Field(description="Files of the ZIP that are not supported images")


class UploadQuery(Query):
    """The name of a single image that is sent as the body."""

    name: Annotated[Text, Field(min_length=1, max_length=255)] | None = None


class AssetQuery(Query):
    """Filters of the list of assets."""

    name: Annotated[Text, Field(min_length=1, max_length=255)] | None = None
    limit: int = Field(50, ge=1, le=200)
    cursor: Annotated[str, Field(max_length=200)] | None = Field(None, description="`next_cursor` of the previous page")


@routes.post(
    "/api/v1/assets",
    scope=Scope.SUBMIT,
    response=AssetsResponse,
    status=201,
    consumes=CONSUMES,
    max_body=lambda settings: settings.max_table_bytes,
)
def upload_assets(app_context: AppContext, caller: Caller, query: UploadQuery) -> AssetsResponse:
    """Upload images.

    Send a PNG, JPEG or WebP as the body or as `file` of a form; or a ZIP of them, in which each path is an image's name. Images
    are rotated upright by their EXIF orientation.
    """
    with tempfile.TemporaryFile() as spool:
        file, name = _uploaded(spool)
        name = query.name or name or "picture"
        is_zip = request.mimetype == ZIP or file.read(4) == b"PK\x03\x04"
        file.seek(0)
        if is_zip:
            return _store_zip(app_context, caller, file)
        item, new = _store(app_context, caller, name, file.read(app_context.settings.max_asset_bytes + 1))
        return AssetsResponse(items=[item], stored=int(new), errors=[])


def _uploaded(spool: BinaryIO) -> tuple[BinaryIO, str]:
    try:
        if request.mimetype == "multipart/form-data":
            if list(request.files) != ["file"] or len(request.files.getlist("file")) != 1:
                raise InvalidRequest([FieldError(field="file", detail="is not exactly one file", remedy="send it as `file`")])
            upload = request.files["file"]
            upload.save(spool)
            name = upload.filename or ""
        else:
            name = ""
            while chunk := request.stream.read(CHUNK_BYTES):
                spool.write(chunk)
    except RequestEntityTooLarge:
        raise too_large() from None
    spool.seek(0)
    return spool, name


def _store(app_context: AppContext, caller: Caller, name: str, data: bytes) -> tuple[AssetResponse, bool]:
    asset, new = store_picture(
        app_context.store,
        app_context.outputs,
        app_context.settings,
        data,
        name=name,
        tenant_id=caller.tenant_id,
        decode_slots=app_context.decode_slots,
    )
    with app_context.store.read() as session:
        response = _responses(session, [asset])[0]
    return response.model_copy(update={"name": name}), new


def _store_zip(app_context: AppContext, caller: Caller, file: BinaryIO) -> AssetsResponse:
    items: list[AssetResponse] = []
    errors: list[FieldError] = []
    stored = 0
    for name, data in PictureZip(file, app_context.settings, field="file"):
        try:
            if isinstance(data, FieldError):
                raise InvalidRequest([data])
            item, new = _store(app_context, caller, name, data)
        except InvalidRequest as error:
            errors += error.errors[: max(0, MAX_ERRORS - len(errors))]
        else:
            items.append(item)
            stored += new
    if not items:
        nothing = FieldError(field="file", detail="has no picture that can be stored", remedy="send PNG, JPEG or WebP files")
        raise InvalidRequest([*errors, nothing])
    return AssetsResponse(items=items, stored=stored, errors=row_errors(errors))


@routes.get("/api/v1/assets", scope=Scope.READ, response=AssetList)
def list_assets(app_context: AppContext, caller: Caller, query: AssetQuery) -> Reply:
    """List assets, newest first."""
    wanted = f"assets {caller.tenant_filter} {query.name!r}"
    before = read_cursor(query.cursor, wanted, form=partial(is_id, prefix="asset"))
    statement = select(Asset).order_by(Asset.id.desc()).limit(query.limit + 1)
    if caller.tenant_filter is not None:
        statement = statement.where(Asset.tenant_id == caller.tenant_filter)
    if query.name is not None:
        statement = statement.join(AssetName, AssetName.asset_id == Asset.id)
        statement = statement.where(AssetName.tenant_id == Asset.tenant_id, AssetName.name == plain_path(query.name))
    if before is not None:
        statement = statement.where(Asset.id < before)
    with app_context.store.read() as session:
        found = session.scalars(statement).all()
        items = _responses(session, found[: query.limit])
    cursor = make_cursor(found[query.limit - 1].id, wanted) if len(found) > query.limit else None
    return Reply(AssetList(items=items, next_cursor=cursor), headers=next_link(cursor))


@routes.get("/api/v1/assets/{asset_id}", scope=Scope.READ, response=AssetResponse)
def get_asset(app_context: AppContext, caller: Caller, asset_id: str) -> AssetResponse:
    """Get an asset."""
    with app_context.store.read() as session:
        return _responses(session, [_visible(session, caller, asset_id)])[0]


@routes.get("/api/v1/assets/{asset_id}/file", scope=Scope.READ, media="image/*")
def asset_file(app_context: AppContext, caller: Caller, asset_id: str) -> Response:
    """Get the image file of an asset."""
    with app_context.store.read() as session:
        asset = _visible(session, caller, asset_id)
    try:
        file = app_context.outputs.open(asset.storage_key)
    except FileNotFoundError:
        raise NotFound(f"the file of {asset.id} is missing") from None
    response = send_file(file, mimetype=MEDIA[asset.format], etag=asset.sha256)
    response.headers["Cache-Control"] = "private, max-age=3600"
    return response


def _visible(session: Session, caller: Caller, asset_id: str) -> Asset:
    asset = session.get(Asset, asset_id)
    if asset is None or not caller.can_see(asset.tenant_id):
        raise NotFound(f"no asset {asset_id[:60]!r}")
    return asset


def _responses(session: Session, assets: Sequence[Asset]) -> list[AssetResponse]:
    names, base = names_of(session, [asset.id for asset in assets]), base_url()
    return [
        AssetResponse(
            id=asset.id,
            name=asset.name,
            names=names[asset.id],
            sha256=asset.sha256,
            format=asset.format,
            width=asset.width,
            height=asset.height,
            bytes=asset.bytes,
            created_at=asset.created_at,
            url=f"{base}/api/v1/assets/{asset.id}/file",
        )
        for asset in assets
    ]
