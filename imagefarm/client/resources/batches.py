"""`farm.batches`: a table becomes images; picks, finals, deliveries and files of batches."""

from __future__ import annotations

import json
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, Unpack

from imagefarm.client.fields import BatchFields, FinalsFields, PickAction, PickState
from imagefarm.client.files import save_file
from imagefarm.client.pages import Pages
from imagefarm.client.request import API, Download, FileWork, Request, Steps, ask, get, given, post
from imagefarm.client.resource import Listing, Operation, Resource, TransportT
from imagefarm.client.schemas import Batch, BatchImage, BatchImageList, BatchList
from imagefarm.client.waiting import optional_bar, wait_until
from imagefarm.states import BatchState

SUBMIT_TIMEOUT_S = 600.0
"""Seconds. The farm needs time for a large table and its images."""
PICKS_PER_REQUEST = 2000
TABLE_TYPES = {
    ".csv": "text/csv",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".json": "application/json",
}

BatchFile = Literal["manifest.csv", "manifest.jsonl", "report.csv", "errors.csv", "archive.zip"]


def submit_batch(
    table: Path | str, *, archive: Path | str | None = None, idempotency_key: str | None = None, **fields: Unpack[BatchFields]
) -> Steps[Batch]:
    """Submit a table as a batch: .csv with a header, .jsonl with one object per line, or .json with the API's request body.

    `archive` is a ZIP of the images that the table's columns image, mask and subject name.
    """
    path = Path(table)
    media = TABLE_TYPES.get(path.suffix.lower(), "text/csv")
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    params = {name: _parameter(value) for name, value in given(fields).items()}
    if archive is None:
        content = yield FileWork(path.read_bytes)
        return (yield from ask(Batch, _submit(params, headers | {"Content-Type": media}, content=content)))
    with Path(archive).open("rb") as images, path.open("rb") as rows:
        files = {"file": (path.name, rows, media), "archive": (Path(archive).name, images, "application/zip")}
        return (yield from ask(Batch, _submit(params, headers, files=files)))


def get_batch(batch: Batch | str) -> Steps[Batch]:
    """Get a batch as it is now."""
    return ask(Batch, get(f"/batches/{batch_id(batch)}"))


def list_batches(*, state: BatchState | str | None = None) -> Pages[Batch]:
    """List batches, newest first; with `state`, only batches in that state."""
    return Pages(path="/batches", kind=BatchList, query=given({"state": state}))


def pause_batch(batch: Batch | str) -> Steps[Batch]:
    """Hold the queued jobs of a batch; running jobs finish."""
    return _change(batch, "pause")


def resume_batch(batch: Batch | str) -> Steps[Batch]:
    """Queue the jobs of a paused batch again."""
    return _change(batch, "resume")


def cancel_batch(batch: Batch | str) -> Steps[Batch]:
    """Cancel the jobs of a batch that have not ended."""
    return _change(batch, "cancel")


def approve_batch(batch: Batch | str) -> Steps[Batch]:
    """Release the jobs of a batch that wait for its canary."""
    return _change(batch, "approve")


def retry_failed(batch: Batch | str) -> Steps[Batch]:
    """Queue the failed jobs of a batch again."""
    return _change(batch, "retry-failed")


def list_batch_images(
    batch: Batch | str, *, pick: PickState | None = None, verdict: Literal["accept", "review", "reroll"] | None = None
) -> Pages[BatchImage]:
    """List the images of a batch in the order of its rows; with `pick` or the quality gate's `verdict`, only those."""
    query = given({"pick": pick, "verdict": verdict})
    return Pages(path=f"/batches/{batch_id(batch)}/images", kind=BatchImageList, query=query, page_size=500)


def pick_images(batch: Batch | str, picks: Mapping[str, PickAction]) -> Steps[Batch]:
    """Decide about images of a batch: a mapping of image ids to approve, reject, reroll or clear.

    Repeating changes nothing. A large mapping is sent in several requests. Returns the batch after the last request.
    """
    ids = list(picks)
    seen = None
    for start in range(0, len(ids), PICKS_PER_REQUEST):
        chunk = [{"image_id": each, "pick": picks[each]} for each in ids[start : start + PICKS_PER_REQUEST]]
        seen = yield from ask(Batch, post(f"/batches/{batch_id(batch)}/picks", {"picks": chunk}))
    return seen or (yield from get_batch(batch))


def render_finals(batch: Batch | str, width: int, height: int, **fields: Unpack[FinalsFields]) -> Steps[Batch]:
    """Render the approved images of a batch in another size (pixels), as a new batch. Repeating it renders no image twice."""
    return ask(Batch, post(f"/batches/{batch_id(batch)}/finals", {"width": width, "height": height} | given(fields)))


def deliver_batch(batch: Batch | str, bucket: str, prefix: str) -> Steps[Batch]:
    """Upload a batch's files, when the batch is done, to a bucket that the operator allows. `delivery` of the result has the
    state."""
    return ask(Batch, post(f"/batches/{batch_id(batch)}/deliver", {"bucket": bucket, "prefix": prefix}))


def wait_for_delivery(
    batch: Batch | str, *, timeout_s: float | None = None, on_progress: Callable[[Batch], None] | None = None
) -> Steps[Batch]:
    """Wait until a batch is delivered, its delivery has failed, or the batch stops without being done (paused, or awaiting
    approval).

    Raises WaitTimeoutError after `timeout_s` seconds.
    """

    def ended(seen: Batch) -> bool:
        if seen.delivery is None or seen.delivery.state in {"delivered", "failed"}:
            return True
        # a batch whose jobs have all ended is done at the next sweep
        return seen.delivery.state == "open" and (seen.state == "cancelled" or (seen.rests and not seen.is_final))

    return wait_until(lambda: get_batch(batch), ended, timeout_s, on_progress)


def wait_for_batch(
    batch: Batch | str,
    *,
    timeout_s: float | None = None,
    on_progress: Callable[[Batch], None] | None = None,
    progress: bool = False,
) -> Steps[Batch]:
    """Wait until a batch has ended, is paused, or waits for the approval of its canary.

    `progress` shows a bar on a terminal's standard error. Raises WaitTimeoutError after `timeout_s` seconds.
    """
    with optional_bar(progress, "pictures", 1) as advance:

        def show(seen: Batch) -> None:
            advance(seen.counts.ended, seen.counts.accepted)
            if on_progress is not None:
                on_progress(seen)

        return (yield from wait_until(lambda: get_batch(batch), lambda seen: seen.rests, timeout_s, show))


def download_batch(
    batch: Batch | str, folder: Path | str, *, pick: PickState | Literal["all"] | None = None
) -> Steps[Sequence[Path]]:
    """Write the images of a batch that exist, and its manifest.csv, into `folder`; return their paths.

    Rejected images are left out. With `pick`, only images with that decision are written; `all` writes every image.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    only = "" if pick is None else f"?pick={pick}"
    with tempfile.TemporaryFile(dir=target) as archive:
        yield Download(f"{API}/batches/{batch_id(batch)}/archive.zip{only}", archive)
        paths: Sequence[Path] = yield FileWork(lambda: _extract(archive, target))
        return paths


def save_batch_file(batch: Batch | str, file: BatchFile, path: Path | str) -> Steps[Path]:
    """Write a file of a batch to `path`, whole or not at all.

    manifest.csv and manifest.jsonl list the images, report.csv each row of the table, errors.csv the rows that failed (correct
    and submit them again), archive.zip has the images.
    """
    return save_file(f"/batches/{batch_id(batch)}/{file}", path)


class Batches(Resource[TransportT]):
    """`farm.batches`."""

    submit = Operation(submit_batch)
    get = Operation(get_batch)
    list = Listing(list_batches)
    pause = Operation(pause_batch)
    resume = Operation(resume_batch)
    cancel = Operation(cancel_batch)
    approve = Operation(approve_batch)
    retry_failed = Operation(retry_failed)
    images = Listing(list_batch_images)
    pick = Operation(pick_images)
    finals = Operation(render_finals)
    deliver = Operation(deliver_batch)
    wait = Operation(wait_for_batch)
    wait_delivery = Operation(wait_for_delivery)
    download = Operation(download_batch)
    save_file = Operation(save_batch_file)


def batch_id(batch: Batch | str) -> str:
    """The id of a batch, given as a Batch or as the id."""
    return batch if isinstance(batch, str) else str(batch.id)


def _change(batch: Batch | str, action: str) -> Steps[Batch]:
    return ask(Batch, post(f"/batches/{batch_id(batch)}/{action}"))


def _submit(params: Mapping[str, Any], headers: Mapping[str, str], **body: Any) -> Request:
    return Request(method="POST", path=f"{API}/batches", params=params, headers=headers, timeout_s=SUBMIT_TIMEOUT_S, **body)


def _parameter(value: Any) -> Any:
    """An option as a query parameter."""
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        plain = all(isinstance(each, str) for each in value)
        return ",".join(value) if plain else json.dumps(value, ensure_ascii=False)
    return value


def _extract(archive: IO[bytes], target: Path) -> Sequence[Path]:
    with zipfile.ZipFile(archive) as files:  # extract ignores drives, roots and `..`
        return [Path(files.extract(name, target)) for name in files.namelist()]
