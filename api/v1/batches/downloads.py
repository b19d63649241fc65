"""Downloads of a batch: manifest, report, archive of its images, and the rejected rows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal
from urllib.parse import quote

from flask import Response
from pydantic import Field

from api.http.routes import AppContext, Caller, Routes, Scope
from api.http.schemas import Body, Query
from api.v1.batches.picks import PickState
from api.v1.batches.routes import visible_batch_response
from api.v1.schemas.batches import BatchResponse
from imagefarm.errors import Conflict
from imagefarm.states import BatchState
from imagefarm.store.batches import visible_batch
from imagefarm.store.jobs import visible_job
from scheduler.batches import delivery_schedule, lifecycle
from scheduler.batches.export.archive import archived, stream_zip
from scheduler.batches.export.manifest import entries, entries_of_job, errors_csv, manifest_csv, manifest_jsonl, report_csv
from scheduler.batches.table.delivery_target import DeliveryTarget
from scheduler.batches.table.file_names import sanitize
from scheduler.delivery.buckets import check_bucket

routes = Routes(tag="batches")
job_routes = Routes(tag="jobs")

CSV = "text/csv"
JSON_LINES = "application/x-ndjson"
ZIP = "application/zip"


class BatchDownloadQuery(Query):
    """Which images of a batch to download."""

    pick: PickState | None = Field(None, description="Only images with this pick; open: without a pick")


class ArchiveQuery(Query):
    """Which images of a batch the archive holds."""

    pick: PickState | Literal["all"] | None = Field(
        None, description="Only those that were decided so; open: not decided yet; all. Without it: all but the rejected ones"
    )


@routes.get("/api/v1/batches/{batch_id}/manifest.csv", scope=Scope.READ, media=CSV)
def batch_manifest_csv(app_context: AppContext, caller: Caller, batch_id: str, query: BatchDownloadQuery) -> Response:
    """Get a batch's manifest as CSV.

    One line per image: row, sku, name, file, seed, sha256, state, reason, job, custom_id, pick, verdict, channel. A re-rolled
    image has no file: its replacement has its name. A cell that a spreadsheet would run as a formula begins with an apostrophe.
    """
    name = _name(app_context, caller, batch_id)
    return _stream(manifest_csv(entries(app_context.store, batch_id, query.pick)), CSV, f"{name}-manifest.csv")


@routes.get("/api/v1/batches/{batch_id}/manifest.jsonl", scope=Scope.READ, media=JSON_LINES)
def batch_manifest_jsonl(app_context: AppContext, caller: Caller, batch_id: str, query: BatchDownloadQuery) -> Response:
    """Get a batch's manifest as JSON Lines."""
    name = _name(app_context, caller, batch_id)
    return _stream(manifest_jsonl(entries(app_context.store, batch_id, query.pick)), JSON_LINES, f"{name}-manifest.jsonl")


@routes.get("/api/v1/batches/{batch_id}/report.csv", scope=Scope.READ, media=CSV)
def batch_report_csv(app_context: AppContext, caller: Caller, batch_id: str) -> Response:
    """Get a line for each row of a batch's table.

    The columns are row, sku, change (of an update: reused, changed, new, again or removed), jobs, pictures, states, problem. Rows
    that exist only in the earlier table come last, without a number.
    """
    name = _name(app_context, caller, batch_id)
    return _stream(report_csv(app_context.store, batch_id), CSV, f"{name}-report.csv")


@routes.get("/api/v1/batches/{batch_id}/errors.csv", scope=Scope.READ, media=CSV)
def batch_errors_csv(app_context: AppContext, caller: Caller, batch_id: str) -> Response:
    """Get the rows that failed.

    Rejected rows and rows whose jobs failed, unchanged, with the reason. Correct them and send the table again.
    """
    name = _name(app_context, caller, batch_id)
    return _stream(errors_csv(app_context.store, batch_id), CSV, f"{name}-errors.csv")


@routes.get("/api/v1/batches/{batch_id}/archive.zip", scope=Scope.READ, media=ZIP)
def batch_archive(app_context: AppContext, caller: Caller, batch_id: str, query: ArchiveQuery) -> Response:
    """Get a batch's pictures as a ZIP file.

    It is made while it is sent, and holds what has succeeded so far, with a manifest of just that. Rejected pictures are in it
    only with `pick=all` or `pick=rejected`.
    """
    name = _name(app_context, caller, batch_id)
    found = archived(entries(app_context.store, batch_id, None if query.pick == "all" else query.pick), query.pick)
    return _stream(stream_zip(found, app_context.outputs), ZIP, f"{name}.zip")


class DeliverBody(DeliveryTarget, Body):
    """A bucket that the operator allows, and the folder in it."""


@routes.post("/api/v1/batches/{batch_id}/deliver", scope=Scope.SUBMIT, response=BatchResponse, status=202, errors=(404, 409))
def deliver_batch(app_context: AppContext, caller: Caller, batch_id: str, body: DeliverBody) -> BatchResponse:
    """Upload a batch's files to a bucket.

    The upload starts when the batch is done, or at once if it is done already. It sends the images and channel files under their
    names, then the manifest. Rejected images are left out. Files that the bucket already has are not sent again, so you can
    repeat a failed delivery. The batch shows the state of its delivery.
    """
    with app_context.store.write() as session:
        tenant = visible_batch(session, batch_id, caller.tenant_filter).tenant_id
        check_bucket(session, app_context.settings, body.bucket, tenant, field="bucket")
        batch = lifecycle.get_for_update(session, batch_id, tenant)
        if batch.state in {BatchState.CANCELLED, BatchState.VALIDATING}:
            raise Conflict(f"batch {batch_id} is {batch.state}; a cancelled or validating batch cannot be delivered")
        delivery_schedule.schedule(session, batch, DeliveryTarget(bucket=body.bucket, prefix=body.prefix), by=caller.name)
    return visible_batch_response(app_context, caller, batch_id)


@job_routes.get("/api/v1/jobs/{job_id}/archive.zip", scope=Scope.READ, media=ZIP)
def job_archive(app_context: AppContext, caller: Caller, job_id: str) -> Response:
    """Get a job's images as a ZIP file, with a manifest."""
    with app_context.store.read() as session:
        visible_job(session, job_id, caller.tenant_filter)
    return _stream(stream_zip(entries_of_job(app_context.store, job_id), app_context.outputs), ZIP, f"{job_id}.zip")


def _name(app_context: AppContext, caller: Caller, batch_id: str) -> str:
    """A file name for the batch. Raises NotFound for a batch that the caller may not see."""
    with app_context.store.read() as session:
        batch = visible_batch(session, batch_id, caller.tenant_filter)
    return sanitize(batch.name)[:60].strip("-.") or batch.id


def _attachment(file_name: str) -> str:
    """The header for a file to save: its name, and in ASCII for programs that know no other (RFC 6266)."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", file_name).strip("-")
    if plain == file_name:
        return f'attachment; filename="{plain}"'
    plain = f"batch{plain}" if plain.startswith(".") else plain
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"


def _stream(chunks: Iterable[str] | Iterable[bytes], media: str, file_name: str) -> Response:
    headers = {"Content-Disposition": _attachment(file_name), "X-Accel-Buffering": "no"}
    return Response(chunks, content_type=f"{media}; charset=utf-8" if media != ZIP else ZIP, headers=headers)
