"""The client: a farm's REST API as Python calls."""

from __future__ import annotations

import json
import os
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from imagefarm.client.admin import AdminClient
from imagefarm.client.errors import JobFailedError, WaitTimeoutError
from imagefarm.client.schemas import (
    Attempt,
    Batch,
    BatchImage,
    BatchImageList,
    BatchList,
    BulkResult,
    Image,
    Job,
    JobList,
    LookupResult,
    Model,
    Queue,
    Replay,
    Worker,
)
from imagefarm.client.transport import API, Transport
from imagefarm.imaging.formats import extension
from imagefarm.states import JobState

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"
BATCH_TIMEOUT_S = 600.0
"""A large table with its pictures takes the farm some time."""
FIRST_POLL_S = 0.1
MAX_POLL_S = 1.0
PICKS_PER_REQUEST = 2000
MEDIA = {".csv": "text/csv", ".jsonl": "application/x-ndjson", ".ndjson": "application/x-ndjson", ".json": "application/json"}


PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


class Client(AdminClient):
    """Talks to a farm.

    ```
    with Client() as farm:
        job = farm.wait(farm.submit("a red mug on a white background", seed=42))
        farm.download(job, "pictures")
    ```

    `url` and `key` default to IMAGEFARM_URL and IMAGEFARM_API_KEY, then to a farm on this machine and no key. Requests are
    tried `retries` times more when the farm is busy (it says for how long) or out of reach; every submit carries an
    Idempotency-Key, so that a repeated one makes no second job. Raises the kinds of `imagefarm.client.ClientError`.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 30.0,
        retries: int = 5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = (url or os.environ.get("IMAGEFARM_URL") or DEFAULT_URL).rstrip("/")
        self._transport = Transport(
            self.url, key or os.environ.get("IMAGEFARM_API_KEY"), timeout_s=timeout_s, retries=retries, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connections."""
        self._transport.close()

    # jobs

    def submit(self, prompt: str, *, idempotency_key: str | None = None, **fields: Any) -> Job:
        """Submit a job and return it, queued. `fields` are those of `imagefarm.recipe.JobRequest`: model, width, height,
        steps, guidance, seed, count, negative_prompt, labels, custom_id, priority and so on; None means the default.
        """
        body = {"prompt": prompt} | {name: value for name, value in fields.items() if value is not None}
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return Job.model_validate(self._transport.json("POST", f"{API}/jobs", json=body, headers=headers))

    def get(self, job: Job | str) -> Job:
        """A job as it is now."""
        return Job.model_validate(self._transport.json("GET", f"{API}/jobs/{_id(job)}"))

    def list(self, *, limit: int | None = None, **filters: Any) -> Iterator[Job]:
        """Jobs, newest first, fetched page by page; at most `limit`. Filters are the API's: state, model, batch,
        label (`name:value`), text, custom_id."""
        given = {name: value for name, value in filters.items() if value is not None}
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            page_size = 200 if left is None else min(left, 200)
            query = given | {"limit": page_size} | ({"cursor": cursor} if cursor else {})
            page = JobList.model_validate(self._transport.json("GET", f"{API}/jobs", params=query))
            yield from page.items[:left]
            cursor = page.next_cursor
            if cursor is None:
                return
            left = None if left is None else left - len(page.items)

    def cancel(self, job: Job | str) -> Job:
        """Cancel a job; repeating does no harm."""
        return Job.model_validate(self._transport.json("POST", f"{API}/jobs/{_id(job)}/cancel"))

    def retry(self, job: Job | str) -> Job:
        """Put a failed or cancelled job back into the queue."""
        return Job.model_validate(self._transport.json("POST", f"{API}/jobs/{_id(job)}/retry"))

    def replay(self, job: Job | str) -> Job:
        """Render a succeeded job's recipe again, as a new job; `replayed` of that one tells whether the pictures are the same."""
        return Job.model_validate(self._transport.json("POST", f"{API}/jobs/{_id(job)}/replay"))

    def replayed(self, replay: Job | str) -> Replay:
        """A replay's pictures held against those of the first making."""
        return Replay.model_validate(self._transport.json("GET", f"{API}/jobs/{_id(replay)}/replay"))

    def attempts(self, job: Job | str) -> Sequence[Attempt]:
        """Each claim of a job by a worker, the last first, and how it ended."""
        found = self._transport.json("GET", f"{API}/jobs/{_id(job)}/attempts")
        return [Attempt.model_validate(item) for item in found["items"]]

    def cancel_all(self, *, expected: int | None = None, **filters: Any) -> BulkResult:
        """Cancel all jobs that match these filters of `list`, if they are no more than `expected`; None only counts them."""
        return self._change_all("cancel", expected, filters)

    def retry_all(self, *, expected: int | None = None, **filters: Any) -> BulkResult:
        """Queue all failed or cancelled jobs that match again, if they are no more than `expected`; None only counts them."""
        return self._change_all("retry", expected, filters)

    def _change_all(self, act: str, expected: int | None, filters: dict[str, Any]) -> BulkResult:
        body = {name: value for name, value in filters.items() if value is not None} | {"expected": expected}
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return BulkResult.model_validate(self._transport.json("POST", f"{API}/jobs/{act}", json=body, headers=headers))

    def wait(
        self,
        job: Job | str,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[Job], None] | None = None,
        progress: bool = False,
        check: bool = False,
    ) -> Job:
        """Wait until a job has ended and return it. `on_progress` gets every state seen on the way, the last one too; `progress`
        shows a bar with the time that is left on a terminal's standard error.

        Raises WaitTimeoutError after `timeout_s` (the job goes on), and with `check` JobFailedError unless it succeeded.
        """
        with _bar(progress, "waiting", 1) as advance:

            def show(seen: Job) -> None:
                steps = seen.progress.steps or 1
                advance(steps if seen.is_final else seen.progress.step, steps, str(seen.state))
                if on_progress is not None:
                    on_progress(seen)

            seen = self._wait(lambda: self.get(job), lambda seen: seen.is_final, timeout_s, show)
        if check and seen.state != JobState.SUCCEEDED:
            raise JobFailedError(f"{seen.id} {seen.state}: {seen.reason}")
        return seen

    def download(self, job: Job | str, folder: Path | str, *, name: str | None = None) -> Sequence[Path]:
        """Write the pictures of a succeeded job into `folder` and return their paths.

        They are called `NAME.png`, or `NAME-1.png`, `NAME-2.png` if there are several (or `.jpg`, `.webp`, as the recipe asked);
        `name` defaults to the job's id.
        """
        seen = job if isinstance(job, Job) and job.is_final else self.get(job)
        stem = name or seen.id
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        paths = []
        for image in seen.images:
            number = f"-{image.index + 1}" if seen.count > 1 else ""
            paths.append(self.save(image, target / f"{stem}{number}.{extension(image.format)}"))
        return paths

    def image(self, image: Image | str) -> Image:
        """A picture with all that is on record of it; the API's further fields are attributes too."""
        image_id = image if isinstance(image, str) else image.id
        return Image.model_validate(self._transport.json("GET", f"{API}/images/{image_id}"))

    def save(self, image: Image, path: Path) -> Path:
        """Write one picture's file to `path`, whole or not at all."""
        return self._transport.save(_path_of(image.url), path)

    def save_archive(self, job: Job | str, path: Path | str) -> Path:
        """Write a job's pictures to `path` as one ZIP, whole or not at all."""
        return self._transport.save(f"{API}/jobs/{_id(job)}/archive.zip", Path(path))

    def preview(self, job: Job | str, *, index: int = 0) -> bytes:
        """A small WebP of an image in the making, of a job submitted with `preview`. Raises NotFoundError without one."""
        return self._transport.send("GET", f"{API}/jobs/{_id(job)}/preview", params={"index": index}).content

    def upload(self, picture: Path | str, *, name: str | None = None) -> str:
        """Send a picture in and return its id, for `init_image`, `mask` and `subject`. The same picture has one id for ever."""
        path = Path(picture)
        # what a picture is, its bytes say; a name that says otherwise does no harm
        headers = {"Content-Type": PICTURES.get(path.suffix.lower(), "image/png")}
        query = {"name": name or path.name}
        response = self._transport.json("POST", f"{API}/assets", params=query, content=path.read_bytes(), headers=headers)
        return str(response["items"][0]["id"])

    # batches

    def batch(
        self, table: Path | str, *, archive: Path | str | None = None, idempotency_key: str | None = None, **options: Any
    ) -> Batch:
        """Submit a table as a batch: .csv with a header, .jsonl with an object a line, or .json as the API's one body.

        `archive` is a ZIP of the pictures that the table's columns image, mask and subject name. Options are the API's: template,
        name, model, width, height, steps, seed, seeds, variants (a mapping of lists), labels (a list), name_pattern, canary,
        on_error, dry_run, update_of and others; None means the default.
        """
        path = Path(table)
        media = MEDIA.get(path.suffix.lower(), "text/csv")
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        query = {name: _parameter(value) for name, value in options.items() if value is not None}
        send = partial(self._transport.json, "POST", f"{API}/batches", params=query, timeout=BATCH_TIMEOUT_S)
        if archive is None:
            return Batch.model_validate(send(content=path.read_bytes(), headers=headers | {"Content-Type": media}))
        with Path(archive).open("rb") as pictures, path.open("rb") as rows:
            files = {"file": (path.name, rows, media), "archive": (Path(archive).name, pictures, "application/zip")}
            return Batch.model_validate(send(files=files, headers=headers))

    def get_batch(self, batch: Batch | str) -> Batch:
        """A batch as it is now."""
        return Batch.model_validate(self._transport.json("GET", f"{API}/batches/{_id(batch)}"))

    def batches(self, *, state: str | None = None) -> Iterator[Batch]:
        """Batches, newest first; with `state`, those in it."""
        yield from self._pages(f"{API}/batches", BatchList, {"state": state})

    def pause_batch(self, batch: Batch | str) -> Batch:
        """Hold what of a batch waits; what runs finishes."""
        return Batch.model_validate(self._transport.json("POST", f"{API}/batches/{_id(batch)}/pause"))

    def resume_batch(self, batch: Batch | str) -> Batch:
        """Let a paused batch go on."""
        return Batch.model_validate(self._transport.json("POST", f"{API}/batches/{_id(batch)}/resume"))

    def retry_failed(self, batch: Batch | str) -> Batch:
        """Run the failed jobs of a batch again."""
        return Batch.model_validate(self._transport.json("POST", f"{API}/batches/{_id(batch)}/retry-failed"))

    def save_batch_file(self, batch: Batch | str, file: str, path: Path | str) -> Path:
        """Write a file of a batch to `path`, whole or not at all: manifest.csv, manifest.jsonl, report.csv (a line for each row
        of the table), errors.csv (the rows that failed, to be mended and sent again) or archive.zip."""
        return self._transport.save(f"{API}/batches/{_id(batch)}/{file}", Path(path))

    def approve_batch(self, batch: Batch | str) -> Batch:
        """Let the rest of a batch follow its canary."""
        return Batch.model_validate(self._transport.json("POST", f"{API}/batches/{_id(batch)}/approve"))

    def cancel_batch(self, batch: Batch | str) -> Batch:
        """Cancel what of a batch has not ended."""
        return Batch.model_validate(self._transport.json("POST", f"{API}/batches/{_id(batch)}/cancel"))

    def batch_images(self, batch: Batch | str, **filters: Any) -> Iterator[BatchImage]:
        """The pictures of a batch in the order of its rows, fetched page by page. Filters are the API's: pick (approved,
        rejected, rerolled or open) and verdict."""
        query: dict[str, Any] = {"limit": 500} | {name: value for name, value in filters.items() if value is not None}
        while True:
            page = BatchImageList.model_validate(self._transport.json("GET", f"{API}/batches/{_id(batch)}/images", params=query))
            yield from page.items
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    def pick(self, batch: Batch | str, picks: Mapping[str, str]) -> Batch:
        """Decide about pictures of a batch: a mapping of image ids to approve, reject, reroll or clear. Repeating changes
        nothing; many are sent in several requests. Returns the batch as it is then."""
        ids = list(picks)
        seen = None
        for start in range(0, len(ids), PICKS_PER_REQUEST):
            body = {"picks": [{"image_id": each, "pick": picks[each]} for each in ids[start : start + PICKS_PER_REQUEST]]}
            seen = Batch.model_validate(self._transport.json("POST", f"{API}/batches/{_id(batch)}/picks", json=body))
        return seen or self.get_batch(batch)

    def finals(self, batch: Batch | str, width: int, height: int, **options: Any) -> Batch:
        """Render the approved pictures of a batch in another size, as a new batch. Options are the API's: steps, upscale, name,
        channels, deliver; None means as the drafts. Asking again renders nothing twice."""
        body = {"width": width, "height": height} | {name: value for name, value in options.items() if value is not None}
        return Batch.model_validate(self._transport.json("POST", f"{API}/batches/{_id(batch)}/finals", json=body))

    def deliver(self, batch: Batch | str, bucket: str, prefix: str) -> Batch:
        """Upload a batch's files to a bucket that the farm's operator allows, when it is done; see its `delivery`."""
        body = {"bucket": bucket, "prefix": prefix}
        return Batch.model_validate(self._transport.json("POST", f"{API}/batches/{_id(batch)}/deliver", json=body))

    def wait_delivery(
        self, batch: Batch | str, *, timeout_s: float | None = None, on_progress: Callable[[Batch], None] | None = None
    ) -> Batch:
        """Wait until a batch is delivered or its delivery is given up, or until the batch rests without being done.

        Raises WaitTimeoutError after `timeout_s`.
        """

        def ended(seen: Batch) -> bool:
            if seen.delivery is None or seen.delivery.state in {"delivered", "failed"}:
                return True
            # a batch whose jobs have all ended is done at the next sweep
            return seen.delivery.state == "open" and (seen.state == "cancelled" or (seen.rests and not seen.is_final))

        return self._wait(lambda: self.get_batch(batch), ended, timeout_s, on_progress)

    def wait_batch(
        self,
        batch: Batch | str,
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[Batch], None] | None = None,
        progress: bool = False,
    ) -> Batch:
        """Wait until nothing of a batch will run by itself: it has ended, is paused, or waits for approval of its canary.
        `progress` shows a bar with the time that is left on a terminal's standard error.

        Raises WaitTimeoutError after `timeout_s`.
        """
        with _bar(progress, "pictures", 1) as advance:

            def show(seen: Batch) -> None:
                advance(seen.counts.ended, seen.counts.accepted)
                if on_progress is not None:
                    on_progress(seen)

            return self._wait(lambda: self.get_batch(batch), lambda seen: seen.rests, timeout_s, show)

    def download_batch(self, batch: Batch | str, folder: Path | str, *, pick: str | None = None) -> Sequence[Path]:
        """Write the pictures of a batch that are there, and its manifest.csv, into `folder`; return their paths. With `pick`,
        only those that were decided so: approved, rejected, rerolled or open."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target) as archive:
            only = "" if pick is None else f"?pick={pick}"
            with self._transport.stream(f"{API}/batches/{_id(batch)}/archive.zip{only}") as response:
                for chunk in response.iter_bytes():
                    archive.write(chunk)
            with zipfile.ZipFile(archive) as files:  # extract leaves out drives, roots and `..`
                return [Path(files.extract(name, target)) for name in files.namelist()]

    # the farm

    def lookup(self, file: Path | str) -> LookupResult:
        """Find the job that made a picture, from its file alone."""
        headers = {"Content-Type": "application/octet-stream"}
        response = self._transport.json("POST", f"{API}/images/lookup", content=Path(file).read_bytes(), headers=headers)
        return LookupResult.model_validate(response)

    def models(self) -> Sequence[Model]:
        """The catalogue, with each model's state."""
        return [Model.model_validate(item) for item in self._items(f"{API}/models")]

    def model(self, name: str) -> Model:
        """A model by its name or an alias."""
        return Model.model_validate(self._transport.json("GET", f"{API}/models/{name}"))

    def workers(self) -> Sequence[Worker]:
        """The workers and what they do."""
        return [Worker.model_validate(item) for item in self._items(f"{API}/workers")]

    def drain(self, worker: str, *, reason: str = "") -> None:
        """Let a worker (id or name) finish what it holds and claim nothing more."""
        self._transport.send("POST", f"{API}/workers/{worker}/drain", json={"reason": reason})

    def quarantine(self, worker: str) -> None:
        """Keep a suspect worker from claiming until it is resumed."""
        self._transport.send("POST", f"{API}/workers/{worker}/quarantine", json={})

    def resume(self, worker: str) -> None:
        """Let a drained or quarantined worker claim again."""
        self._transport.send("POST", f"{API}/workers/{worker}/resume", json={})

    def warm(self, model: str, *, worker: str | None = None) -> Sequence[str]:
        """Have the workers that serve a model (or one of them) load it; the ids of those told."""
        return self._send_command(model, "warm", worker)

    def unload(self, model: str, *, worker: str | None = None) -> Sequence[str]:
        """Have workers free the memory that a model takes; the ids of those told."""
        return self._send_command(model, "unload", worker)

    def _send_command(self, model: str, do: str, worker: str | None) -> Sequence[str]:
        body = {} if worker is None else {"worker": worker}
        told: Sequence[str] = self._transport.json("POST", f"{API}/models/{model}/{do}", json=body)["workers"]
        return told

    def queue(self) -> Queue:
        """Lanes, flows and caps."""
        return Queue.model_validate(self._transport.json("GET", f"{API}/queue"))

    def _wait(
        self, look: Callable[[], T], ended: Callable[[T], bool], timeout_s: float | None, on_progress: Callable[[T], None] | None
    ) -> T:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pause = FIRST_POLL_S
        while True:
            seen = look()
            if on_progress is not None:
                on_progress(seen)
            if ended(seen):
                return seen
            if deadline is not None and time.monotonic() + pause > deadline:
                raise WaitTimeoutError(f"not ended after {timeout_s:g} s; it goes on")
            time.sleep(pause)
            pause = min(pause * 1.3, MAX_POLL_S)


@contextmanager
def _bar(shown: bool, words: str, total: float) -> Iterator[Callable[..., None]]:
    """A bar on a terminal, or nothing."""
    if not shown:
        yield lambda *_: None
        return
    from imagefarm.client.progress import progress_bar  # Rich is slow to import, and programs seldom want it

    with progress_bar(words, total) as advance:
        yield advance


def _id(thing: Job | Batch | str) -> str:
    return thing if isinstance(thing, str) else str(thing.id)


def _parameter(value: Any) -> Any:
    """An option as a query parameter."""
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        plain = all(isinstance(each, str) for each in value)
        return ",".join(value) if plain else json.dumps(value, ensure_ascii=False)
    return value


def _path_of(url: str) -> str:
    """The path of a URL that the farm gave; its host may be a name that only the farm itself knows."""
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")
