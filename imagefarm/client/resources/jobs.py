"""`farm.jobs`: submit jobs, follow them, fetch their images."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Unpack

from imagefarm.client.errors import JobFailedError
from imagefarm.client.fields import JobFields, JobFilters
from imagefarm.client.files import save_file, save_url
from imagefarm.client.pages import Pages
from imagefarm.client.request import Steps, ask, ask_all, get, given, post
from imagefarm.client.resource import Listing, Operation, Resource, TransportT
from imagefarm.client.schemas import Attempt, BulkResult, Job, JobList, Replay
from imagefarm.client.waiting import optional_bar, wait_until
from imagefarm.imaging.formats import extension
from imagefarm.states import JobState


def submit_job(prompt: str, *, idempotency_key: str | None = None, **fields: Unpack[JobFields]) -> Steps[Job]:
    """Submit a job and return it, queued. A field that is None or left out has the model's default.

    Several submits with one `idempotency_key` create one job. Without a key, each call creates a job.
    """
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    return ask(Job, post("/jobs", {"prompt": prompt} | given(fields), headers=headers))


def get_job(job: Job | str) -> Steps[Job]:
    """Get a job as it is now."""
    return ask(Job, get(f"/jobs/{job_id(job)}"))


def list_jobs(*, limit: int | None = None, **filters: Unpack[JobFilters]) -> Pages[Job]:
    """List jobs, newest first, fetched page by page; at most `limit`."""
    return Pages(path="/jobs", kind=JobList, query=_query(filters), limit=limit)


def cancel_job(job: Job | str) -> Steps[Job]:
    """Cancel a job; repeating does no harm."""
    return ask(Job, post(f"/jobs/{job_id(job)}/cancel"))


def retry_job(job: Job | str) -> Steps[Job]:
    """Put a failed or cancelled job back into the queue."""
    return ask(Job, post(f"/jobs/{job_id(job)}/retry"))


def cancel_all_jobs(*, expected: int | None = None, **filters: Unpack[JobFilters]) -> Steps[BulkResult]:
    """Cancel all jobs that match the filters. Refused if more than `expected` match; None only counts them."""
    return _change_all("cancel", expected, filters)


def retry_all_jobs(*, expected: int | None = None, **filters: Unpack[JobFilters]) -> Steps[BulkResult]:
    """Queue all failed or cancelled jobs that match the filters. Refused if more than `expected` match; None only counts them."""
    return _change_all("retry", expected, filters)


def replay_job(job: Job | str) -> Steps[Job]:
    """Render a succeeded job's recipe again, as a new job; `get_replay` of the new job compares the images."""
    return ask(Job, post(f"/jobs/{job_id(job)}/replay"))


def get_replay(replay: Job | str) -> Steps[Replay]:
    """Compare the images of a replay with those of the first rendering."""
    return ask(Replay, get(f"/jobs/{job_id(replay)}/replay"))


def list_attempts(job: Job | str) -> Steps[Sequence[Attempt]]:
    """List the attempts of a job, newest first: each claim by a worker, and its outcome."""
    return ask_all(Attempt, get(f"/jobs/{job_id(job)}/attempts"))


def wait_for_job(
    job: Job | str,
    *,
    timeout_s: float | None = None,
    on_progress: Callable[[Job], None] | None = None,
    progress: bool = False,
    check: bool = False,
) -> Steps[Job]:
    """Wait until a job has ended and return it.

    `on_progress` gets each new state, including the last. `progress` shows a bar on a terminal's standard error. Raises
    WaitTimeoutError after `timeout_s` seconds (the job continues), and with `check` JobFailedError unless the job succeeded.
    """
    with optional_bar(progress, "waiting", 1) as advance:

        def show(seen: Job) -> None:
            steps = seen.progress.steps or 1
            advance(steps if seen.is_final else seen.progress.step, steps, str(seen.state))
            if on_progress is not None:
                on_progress(seen)

        seen = yield from wait_until(lambda: get_job(job), lambda seen: seen.is_final, timeout_s, show)
    if check and seen.state != JobState.SUCCEEDED:
        raise JobFailedError(f"{seen.id} {seen.state}: {seen.reason}")
    return seen


def download_job(job: Job | str, folder: Path | str, *, name: str | None = None) -> Steps[Sequence[Path]]:
    """Write the images of a succeeded job into `folder` and return their paths.

    One image is called `NAME.png`; several are called `NAME-1.png`, `NAME-2.png` and so on (or `.jpg`, `.webp`, as the recipe
    says). `name` defaults to the job's id.
    """
    seen = job if isinstance(job, Job) and job.is_final else (yield from get_job(job))
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for image in seen.images:
        number = f"-{image.index + 1}" if seen.count > 1 else ""
        file = target / f"{name or seen.id}{number}.{extension(image.format)}"
        paths.append((yield from save_url(image.url, file)))
    return paths


def save_job_archive(job: Job | str, path: Path | str) -> Steps[Path]:
    """Write a job's images to `path` as one ZIP, whole or not at all."""
    return save_file(f"/jobs/{job_id(job)}/archive.zip", path)


def preview_job(job: Job | str, *, index: int = 0) -> Steps[bytes]:
    """Get a small WebP of an unfinished image. Raises NotFoundError unless the job runs and was submitted with `preview`."""
    preview: bytes = yield replace(get(f"/jobs/{job_id(job)}/preview", index=index), reads="bytes")
    return preview


class Jobs(Resource[TransportT]):
    """`farm.jobs`."""

    submit = Operation(submit_job)
    get = Operation(get_job)
    list = Listing(list_jobs)
    cancel = Operation(cancel_job)
    retry = Operation(retry_job)
    cancel_all = Operation(cancel_all_jobs)
    retry_all = Operation(retry_all_jobs)
    replay = Operation(replay_job)
    get_replay = Operation(get_replay)
    attempts = Operation(list_attempts)
    wait = Operation(wait_for_job)
    download = Operation(download_job)
    save_archive = Operation(save_job_archive)
    preview = Operation(preview_job)


def job_id(job: Job | str) -> str:
    """The id of a job, given as a Job or as the id."""
    return job if isinstance(job, str) else job.id


def _query(filters: JobFilters) -> dict[str, Any]:
    times = {name: value.isoformat() for name, value in filters.items() if isinstance(value, datetime)}
    return given(filters) | times


def _change_all(action: Literal["cancel", "retry"], expected: int | None, filters: JobFilters) -> Steps[BulkResult]:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    return ask(BulkResult, post(f"/jobs/{action}", _query(filters) | {"expected": expected}, headers=headers))
