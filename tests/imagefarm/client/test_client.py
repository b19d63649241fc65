"""The Python client against the real API: typed answers, waiting, downloads, and what its exceptions say."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from imagefarm import Client
from imagefarm.client import Job, JobFailedError, NotFoundError, RequestRefusedError, WaitTimeoutError
from imagefarm.states import BatchState, JobState
from tests.api.farm_api import FarmApi

PROMPT = "白色背景上的红色马克杯"


def test_a_job_from_submit_to_files(api: FarmApi, client: Client, tmp_path: Path) -> None:
    job = client.jobs.submit(PROMPT, seed=2**64 - 1, count=2, labels={"sku": "A-17"}, model=None)
    assert (job.state, job.count, job.labels) == (JobState.QUEUED, 2, {"sku": "A-17"})
    assert job.recipe["prompt"] == PROMPT
    api.render(api.claim(job.id))
    done = client.jobs.wait(job, check=True)
    assert [image.seed for image in done.images] == [2**64 - 1, 0]
    assert done.finished_at is not None
    assert done.finished_at.tzinfo is not None
    paths = client.jobs.download(done, tmp_path, name="A-17")
    assert [path.name for path in paths] == ["A-17-1.png", "A-17-2.png"]
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] == [image.sha256 for image in done.images]
    assert not list(tmp_path.glob("*.part"))
    record = client.images.get(done.images[0])
    assert record.ms == 1.0
    found = client.images.lookup(paths[1])
    assert (found.found_by, found.items[0].job_id, found.items[0].index) == ("file", job.id, 1)


def test_the_list_goes_on_from_page_to_page(client: Client) -> None:
    ids = [client.jobs.submit(f"picture {number}", labels={"set": "pages"}).id for number in range(5)]
    assert [job.id for job in client.jobs.list(label="set:pages")] == ids[::-1]
    assert [job.id for job in client.jobs.list(limit=3)] == ids[:1:-1]
    assert list(client.jobs.list(limit=1, state="succeeded", label="set:pages")) == []


def test_waiting_tells_of_progress_and_of_its_end(api: FarmApi, client: Client) -> None:
    job = client.jobs.submit("wait for me")
    with pytest.raises(WaitTimeoutError, match="it continues"):
        client.jobs.wait(job, timeout_s=0.3)
    seen: list[Job] = []
    claimed = threading.Event()

    def on_progress(job: Job) -> None:
        seen.append(job)
        if not claimed.is_set():
            claimed.set()
            api.render(api.claim(job.id))

    client.jobs.wait(job, on_progress=on_progress)
    assert [item.state for item in seen] == [JobState.QUEUED, JobState.SUCCEEDED]


def test_cancel_retry_and_a_failed_wait(client: Client) -> None:
    job = client.jobs.submit("never mind")
    assert client.jobs.cancel(job).state == JobState.CANCELLED
    with pytest.raises(JobFailedError, match=f"{job.id} cancelled"):
        client.jobs.wait(job, check=True)
    assert client.jobs.retry(job).state == JobState.QUEUED
    client.jobs.cancel(job)


def test_all_that_match_are_cancelled_and_retried(client: Client) -> None:
    for _ in range(2):
        client.jobs.submit("one of many", labels={"of": "many"})
    assert client.jobs.cancel_all(label=["of:many"]).matched == 2
    with pytest.raises(RequestRefusedError, match="more than 1"):
        client.jobs.cancel_all(label=["of:many"], expected=1)
    assert client.jobs.cancel_all(label=["of:many"], expected=2).changed == 2
    assert client.jobs.retry_all(label=["of:many"], expected=2).changed == 2
    assert client.jobs.cancel_all(label=["of:many"], expected=2).changed == 2


def test_a_table_from_dry_run_to_archive(api: FarmApi, client: Client, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("sku,product\nA,red mug\nB,blue box\n")
    options = {"template": "a {{ product }}, {{ view }}", "variants": {"view": ["left", "right"]}, "model": "demo"}
    dry = client.batches.submit(table, dry_run=True, **options)
    assert dry.quote is not None
    assert (dry.id, dry.quote.pictures, dry.quote.prompts[0]) == (None, 4, "a red mug, left")
    batch = client.batches.submit(table, name="two mugs", **options)
    assert (batch.name, batch.counts.accepted) == ("two mugs", 4)
    jobs = list(client.jobs.list(batch=batch.id))
    assert len(jobs) == 4
    for job in jobs:
        if client.jobs.get(job).state == JobState.QUEUED:
            api.render(api.claim(job.id))
    done = client.batches.wait(batch, timeout_s=10)
    assert done.counts.succeeded == 4
    files = client.batches.download(done, tmp_path / "out")
    assert sorted(path.name for path in files if path.suffix == ".png") == [
        "A-left.png",
        "A-right.png",
        "B-left.png",
        "B-right.png",
    ]
    assert (tmp_path / "out" / "A-left.png").is_file()


def test_a_table_with_its_pictures_and_its_update(api: FarmApi, client: Client, tmp_path: Path) -> None:
    table, photos = tmp_path / "table.csv", tmp_path / "photos.zip"
    table.write_text("sku,product,image\nA,mug,a.png\nB,box,\n")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    with zipfile.ZipFile(photos, "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")
    batch = client.batches.submit(table, archive=photos, template="a {{ product }}", model="sd15", name="photos")
    jobs = list(client.jobs.list(batch=batch.id))
    assert sorted(job.recipe["init_image"] is None for job in jobs) == [False, True]
    client.batches.cancel(batch)
    again = client.batches.submit(table, archive=photos, update_of=batch.id)
    assert (again.update_of, again.changes) == (batch.id, {"reused": 0, "changed": 0, "new": 0, "unfinished": 2, "removed": 0})


def test_a_batch_that_waits_for_approval_is_not_waited_for(api: FarmApi, client: Client, tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    table.write_text('{"sku": "A", "prompt": "a mug"}\n{"sku": "B", "prompt": "a box"}\n')
    batch = client.batches.submit(table, canary=1)
    first = next(job for job in client.jobs.list(batch=batch.id) if job.state == JobState.QUEUED)
    api.render(api.claim(first.id))
    rests = client.batches.wait(batch, timeout_s=10)
    assert (rests.state, rests.counts.held) == (BatchState.HELD, 1)
    assert client.batches.cancel(batch).counts.cancelled == 1


def test_models_workers_and_queue(client: Client) -> None:
    assert "demo" in {model.name for model in client.models.list()}
    assert [worker.name for worker in client.workers.list()] == ["worker_1"]
    client.workers.drain("worker_1", reason="dust")
    assert client.workers.list()[0].model_dump()["desired_state"] == "draining"
    client.workers.resume("worker_1")
    assert client.workers.list()[0].model_dump()["desired_state"] == "ready"
    assert isinstance(client.status.queue().lanes, list)


def test_a_refused_request_names_field_and_remedy(client: Client) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        client.jobs.submit("a mug", model="demo", width=63, steps=1000)
    fields = {error.field: error for error in refused.value.fields}
    assert "steps" in fields
    assert all(error.remedy for error in fields.values())
    with pytest.raises(RequestRefusedError, match="no model is called 'nope'"):
        client.jobs.submit("a mug", model="nope")
    with pytest.raises(NotFoundError):
        client.jobs.get("job_00000000000000000000000000")


def test_the_same_idempotency_key_makes_one_job(client: Client) -> None:
    first = client.jobs.submit("once", idempotency_key="k-1")
    assert client.jobs.submit("once", idempotency_key="k-1").id == first.id
