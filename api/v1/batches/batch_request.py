"""The body of a bulk submission: a table in one of four forms, spooled to disk, digested, then read row by row."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, BinaryIO, TypeVar, cast

from flask import request
from pydantic import BaseModel, Field, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from api.http import strict_json
from api.http.field_errors import field_errors
from api.http.routes import JSON, too_large
from api.http.schemas import Query
from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.recipe import Count, Format, Guidance, ModelName, NegativePrompt, Quality, Seed, Side, Steps
from imagefarm.settings import Settings
from imagefarm.states import PriorityClass
from imagefarm.text import Label, NotBool, Text
from scheduler.batches.submit import BatchRequest
from scheduler.batches.table.file_names import MAX_PATTERN_CHARS
from scheduler.batches.table.options import MAX_CANARY, BatchOptions, OnError
from scheduler.batches.table.seeds import SeedPolicy
from scheduler.batches.table.table_reader import CHARSETS, Table, read_csv, read_json_lines, read_json_rows
from scheduler.batches.table.template import MAX_TEMPLATE_CHARS

CSV = "text/csv"
JSON_LINES = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
MULTIPART = "multipart/form-data"
CONSUMES = (CSV, *JSON_LINES, MULTIPART, JSON)
M = TypeVar("M", bound=BaseModel)
FORM_FILES = {"file": "send the table as `file`", "archive": "send one ZIP of pictures as `archive`"}
CHUNK_BYTES = 256 * 1024
DEFAULTS = ("model", "negative_prompt", "width", "height", "steps", "guidance", "sampler", "seed", "count", "format", "quality")


class BatchParameters(Query):
    """A batch without its rows, as query parameters (or as fields of a multipart form)."""

    name: Annotated[Text, Field(min_length=1, max_length=255)] | None = None
    template: Annotated[Text, Field(max_length=MAX_TEMPLATE_CHARS)] | None = Field(
        None, description="The prompt, with `{{ column }}` for each row's values; without it the column `prompt` as it is"
    )
    variants: Annotated[Text, Field(max_length=20_000)] | None = Field(
        None, description='JSON: `{"view": ["front", "side"]}` multiplies every row'
    )
    subject: Annotated[Text, Field(max_length=2000)] | None = Field(
        None, description='JSON: what holds for all photos of the column subject, such as `{"shadow": 0.4, "place": {"y": 0.6}}`'
    )
    labels: Annotated[Text, Field(max_length=2100)] | None = Field(
        None, description="Columns and variants, separated by commas, that become labels of the jobs"
    )
    seeds: SeedPolicy | None = None
    name_pattern: Annotated[Text, Field(max_length=MAX_PATTERN_CHARS)] | None = Field(
        None, description="File names, like `{sku}-{view}-{n}`"
    )
    on_error: OnError | None = None
    canary: Annotated[int, Field(ge=0, le=MAX_CANARY), NotBool] | None = None
    dry_run: bool | None = None
    reuse: bool | None = Field(None, description="Take pictures that exist instead of rendering an identical recipe again")
    update_of: Annotated[Text, Field(min_length=1, max_length=255)] | None = Field(
        None, description="Id or name of an earlier batch of this table: only what changed since is rendered"
    )
    gate: Annotated[Text, Field(max_length=4000)] | None = Field(
        None, description='JSON: `{"sharpness": {"at_least": 20, "otherwise": "reroll"}}`; see docs/catalogue.md'
    )
    channels: Annotated[Text, Field(max_length=8000)] | None = Field(
        None, description="Names of channels, separated by commas; or a JSON list, in which a channel may be written out"
    )
    deliver: Annotated[Text, Field(max_length=500)] | None = Field(
        None, description='JSON: `{"bucket": "shop", "prefix": "spring"}`; the operator says which buckets there are'
    )
    priority: PriorityClass | None = None
    expires_in: Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False)] | None = None
    delimiter: Annotated[str, Field(max_length=10)] | None = Field(None, description="Of a CSV table: a comma, `;` or a tab")
    charset: Annotated[str, Field(max_length=20)] | None = Field(None, description=f"Of a CSV table: {', '.join(CHARSETS)}")
    model: ModelName | None = None
    negative_prompt: NegativePrompt | None = None
    width: Side | None = None
    height: Side | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    sampler: Label | None = None
    seed: Seed | None = None
    count: Count | None = None
    format: Format | None = None
    quality: Quality | None = None


class BatchBody(BatchOptions):
    """A batch as one JSON object, for small tables; larger ones are better sent as CSV or JSON Lines."""

    rows: list[Any]


@contextmanager
def read_batch_request(parameters: BatchParameters, settings: Settings) -> Iterator[tuple[BatchRequest, str]]:
    """The current request's table, at its beginning, and a SHA-256 that stands for it and all that is said about it.

    Raises InvalidRequest, RequestError.
    """
    kind = request.mimetype
    rows = settings.max_batch_rows
    if kind == MULTIPART:
        with _form_files() as (file, name, archive, form):
            merged = _merge_form(parameters, form)
            sha256 = _digest(file, json.dumps(sorted(form.items())))
            if archive is not None:
                sha256 = _digest(archive, sha256)
            lines = name.lower().endswith((".jsonl", ".ndjson"))
            table = read_json_lines(file, max_rows=rows) if lines else _csv(file, merged, rows)
            yield BatchRequest(table, make_options(merged), archive), sha256
        return
    with tempfile.TemporaryFile() as file:
        sha256 = _spool(file, settings.max_body_bytes if kind not in {CSV, *JSON_LINES} else None)
        if kind == CSV:
            yield BatchRequest(_csv(file, parameters, rows), make_options(parameters)), sha256
        elif kind in JSON_LINES:
            yield BatchRequest(read_json_lines(file, max_rows=rows), make_options(parameters)), sha256
        else:
            body = _validated(BatchBody, strict_json.parse(file.read()))
            options = make_options(parameters, body)
            yield BatchRequest(read_json_rows(body.rows, max_rows=rows), options), sha256


def make_options(parameters: BatchParameters, body: BatchBody | None = None) -> BatchOptions:
    """The options of a batch; query parameters win over the body."""
    given: dict[str, Any] = body.model_dump(exclude={"rows"}, exclude_unset=True) if body else {}
    sent = parameters.model_dump(exclude_none=True)
    for name in ("delimiter", "charset"):
        sent.pop(name, None)
    defaults = {name: sent.pop(name) for name in DEFAULTS if name in sent}
    if "subject" in sent:
        defaults["subject"] = _json_parameter("subject", sent.pop("subject"))
    if defaults:
        given["defaults"] = {**given.get("defaults", {}), **defaults}
    if "variants" in sent:
        sent["variants"] = _json_parameter("variants", sent["variants"])
    for name in ("gate", "deliver"):
        if name in sent:
            sent[name] = _json_parameter(name, sent[name])
    if "labels" in sent:
        sent["labels"] = _names(sent["labels"])
    if "channels" in sent:
        text = sent["channels"]
        sent["channels"] = _json_parameter("channels", text) if text.lstrip().startswith("[") else _names(text)
    return _validated(BatchOptions, given | sent)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _json_parameter(name: str, text: str) -> Any:
    try:
        return strict_json.parse(text.encode())
    except InvalidRequest as error:
        first = error.errors[0]
        detail = first.detail if first.field == "body" else f"{first.field}: {first.detail}"
        raise InvalidRequest([FieldError(field=name, detail=detail, remedy=first.remedy)]) from None


def _csv(file: BinaryIO, parameters: BatchParameters, rows: int) -> Table:
    return read_csv(file, max_rows=rows, charset=parameters.charset or "utf-8", delimiter=parameters.delimiter)


def _spool(file: BinaryIO, max_bytes: int | None) -> str:
    """Copy the body to `file`, and return its digest. `max_bytes` bytes, if that is less than the request's own limit."""
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
    """The table of the current request's form with its file name, the ZIP if there is one, and the other fields."""
    try:
        files, form = request.files, request.form
    except RequestEntityTooLarge:
        raise too_large() from None
    for name in {"file", *files}:
        if name not in {"file", "archive"}:
            detail = "is not a file that is known here"
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
    return _validated(BatchParameters, {**form, **parameters.model_dump(mode="json", exclude_none=True)})


def _digest(file: BinaryIO, more: str) -> str:
    digest = hashlib.sha256(more.encode("utf-8", "surrogatepass"))
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()


def _validated(model: type[M], value: Any) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error, model, whole="body")) from None
