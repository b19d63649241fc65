"""The body of a batch submission: a table in one of four formats, spooled to disk, hashed, then read row by row."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from api.http import strict_json
from api.http.routes import JSON, too_large
from api.v1.schemas.batch_parameters import BatchBody, BatchParameters, make_options, validated
from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.settings import Settings
from scheduler.batches.submit import BatchRequest
from scheduler.batches.table.table_reader import TableFile, TableRows, is_json_name

CSV = "text/csv"
JSON_LINES = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
MULTIPART = "multipart/form-data"
CONSUMES = (CSV, *JSON_LINES, MULTIPART, JSON)
FORM_FILES = {"file": "send the table as `file`", "archive": "send one ZIP of images as `archive`"}
CHUNK_BYTES = 256 * 1024


@contextmanager
def read_batch_request(parameters: BatchParameters, settings: Settings) -> Iterator[tuple[BatchRequest, str]]:
    """Yield the current request's batch and the SHA-256 of its table and options.

    The table is at its beginning, and closes with the block. Raises InvalidRequest, RequestError.
    """
    kind = request.mimetype
    rows = settings.max_batch_rows
    if kind == MULTIPART:
        with _form_files() as (file, name, archive, form):
            merged = _merge_form(parameters, form)
            sha256 = _digest(file, json.dumps(sorted(form.items())))
            if archive is not None:
                sha256 = _digest(archive, sha256)
            table = TableFile(file, rows, is_json_name(name), request.files["file"].mimetype_params.get("charset"))
            yield BatchRequest(table, make_options(merged), archive), sha256
        return
    with tempfile.TemporaryFile() as file:
        sha256 = _spool(file, settings.max_body_bytes if kind not in {CSV, *JSON_LINES} else None)
        if kind in {CSV, *JSON_LINES}:
            table = TableFile(file, rows, kind != CSV, request.mimetype_params.get("charset"))
            yield BatchRequest(table, make_options(parameters)), sha256
        else:
            body = validated(BatchBody, strict_json.parse(file.read()))
            options = make_options(parameters, body)
            yield BatchRequest(TableRows(body.rows, rows), options), sha256


def _spool(file: BinaryIO, max_bytes: int | None) -> str:
    """Copy the body to `file` and return its SHA-256. Raises TooLarge above `max_bytes` or the request's own limit."""
    if max_bytes is not None:
        request.max_content_length = min(max_bytes, request.max_content_length or max_bytes)
    digest = hashlib.sha256()
    try:
        while chunk := request.stream.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    except RequestEntityTooLarge:
        raise too_large() from None
    file.seek(0)
    return digest.hexdigest()


@contextmanager
def _form_files() -> Iterator[tuple[BinaryIO, str, BinaryIO | None, dict[str, str]]]:
    """The table of the current request's form with its file name, the ZIP or None, and the other fields."""
    try:
        files, form = request.files, request.form
    except RequestEntityTooLarge:
        raise too_large() from None
    for name in {"file", *files}:
        if name not in {"file", "archive"}:
            detail = "is not a known file field"
            raise InvalidRequest(
                [FieldError(field=name[:100], detail=detail, remedy="send the table as `file`, a ZIP as `archive`")]
            )
        if len(files.getlist(name)) != 1:
            raise InvalidRequest([FieldError(field=name, detail="is not exactly one file", remedy=FORM_FILES[name])])
    for name, values in form.lists():
        if len(values) > 1:
            raise InvalidRequest([FieldError(field=name[:100], detail="is given more than once", remedy="give it once")])
    upload, archive = files["file"], files.get("archive")
    stream = None if archive is None else cast("BinaryIO", archive.stream)
    yield cast("BinaryIO", upload.stream), upload.filename or "", stream, form.to_dict()


def _merge_form(parameters: BatchParameters, form: dict[str, str]) -> BatchParameters:
    return validated(BatchParameters, {**form, **parameters.model_dump(mode="json", exclude_none=True)})


def _digest(file: BinaryIO, more: str) -> str:
    digest = hashlib.sha256(more.encode("utf-8", "surrogatepass"))
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()
