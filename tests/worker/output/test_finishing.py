"""Finishing: pictures, rows and files agree; an attempt that lost its job leaves nothing; a slow store makes rendering wait."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from imagefarm.catalogue import Catalogue
from imagefarm.imaging.metadata import read_metadata
from imagefarm.output_store import LocalOutputStore
from imagefarm.recipe import JobRequest
from imagefarm.settings import Settings
from imagefarm.store import Store
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Attempt, Image, Job
from scheduler.queue import finish
from scheduler.queue.admission import submit_jobs
from scheduler.queue.cancel import cancel_job
from scheduler.queue.claim import ClaimedJob, ClaimLimits, claim
from scheduler.queue.new_job import make_job
from scheduler.queue.retry import Failure, FailureClass
from worker.engine.results import RenderedImage, RenderedJob
from worker.leases.leased_jobs import LeasedJobs
from worker.output.backpressure import InFlightLimit
from worker.output.finishing import JOBS_PER_THREAD, Finishing
from worker.process.identity import make_identity

MakeFinishing = Callable[[LocalOutputStore], Finishing]


@pytest.fixture
def outputs(settings: Settings) -> LocalOutputStore:
    return LocalOutputStore(settings.outputs)


@pytest.fixture
def leased_jobs() -> LeasedJobs:
    return LeasedJobs()


@pytest.fixture
def make(store: Store, settings: Settings, catalogue: Catalogue, leased_jobs: LeasedJobs) -> Iterator[MakeFinishing]:
    made: list[Finishing] = []

    def build(outputs: LocalOutputStore) -> Finishing:
        identity = make_identity(settings, catalogue, device="cpu", node="w@test")
        made.append(Finishing(store, outputs, settings, identity, leased_jobs))
        return made[-1]

    yield build
    for finishing in made:
        finishing.close()


@pytest.fixture
def jobs(store: Store, catalogue: Catalogue, settings: Settings, leased_jobs: LeasedJobs) -> Callable[..., list[ClaimedJob]]:
    def take(number: int = 1, count: int = 1, **fields: Any) -> list[ClaimedJob]:
        requests = [JobRequest(prompt=f"a red mug {n}", seed=7, count=count, **fields) for n in range(number)]
        with store.write() as session:
            submit_jobs(session, [make_job(catalogue, request, DEFAULT_TENANT, costs={}) for request in requests], settings)
        claimed = claim(store, "wrk_a", serves=["demo"], limits=ClaimLimits(images=number * count, quantum_s=1000))
        assert len(claimed) == number
        leased_jobs.add(claimed)
        return claimed

    return take


def pipeline(catalogue: Catalogue) -> Any:
    return SimpleNamespace(name="demo", entry=catalogue.get("demo"), digest="ab" * 32, facts={"revision": "main"})


def rendered(job: ClaimedJob, *, blank: bool = False) -> RenderedJob:
    images = []
    for index in range(job.count):
        seed = job.recipe.seed_of(index)
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        images.append(RenderedImage(index, seed, pixels, {"device": "cpu"}, ["blank"] if blank else []))
    return RenderedJob(job, images, gpu_s=0.3)


def job_row(store: Store, job: ClaimedJob) -> Job:
    with store.read() as session:
        return session.get_one(Job, job.id)


def files(outputs: LocalOutputStore) -> set[str]:
    return {path.relative_to(outputs.root).as_posix() for path in outputs.root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("form", "end"), [("png", ".png"), ("jpeg", ".jpg"), ("webp", ".webp")])
def test_rows_and_files_agree(
    *, store: Store, catalogue: Catalogue, outputs: LocalOutputStore, make: MakeFinishing, jobs: Any, form: str, end: str
) -> None:
    finishing = make(outputs)
    (job,) = jobs(count=3, format=form)
    finishing.submit(rendered(job, blank=True), pipeline(catalogue))
    finishing.close()
    assert len(finishing.leased_jobs) == 0
    assert job_row(store, job).state == "succeeded"
    assert job_row(store, job).warnings == ["image 0: blank", "image 1: blank", "image 2: blank"]
    with store.read() as session:
        rows = session.scalars(select(Image).order_by(Image.index)).all()
    assert {row.storage_key for row in rows} == files(outputs)
    for row in rows:
        data = outputs.read(row.storage_key)
        assert (row.sha256, row.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
        assert row.seed == str(7 + row.index)
        assert row.audit["model"] == {"name": "demo", "source": "models/demo", "revision": "main", "digest": "ab" * 32}
        assert row.audit["recipe_hash"] == job.recipe.recipe_hash
        assert {"versions", "worker", "attempt", "timings_ms", "peak_rss_bytes", "device"} <= set(row.audit)
        assert row.ms > 0
        assert (row.format, Path(row.storage_key).suffix) == (form, end)
        claims = read_metadata(data)["imagefarm"]
        assert (claims["job"], claims["index"], claims["recipe_hash"]) == (job.id, row.index, job.recipe.recipe_hash)
    assert len({row.pixel_sha256 for row in rows}) == 3
    assert finishing.images == finishing.images_per_minute() == 3


@pytest.mark.parametrize(("wanted_by", "state"), [(["*"], "failed"), (["default"], "failed"), (["others"], "succeeded")])
def test_a_blank_picture_fails_where_its_tenant_wants_none(
    *,
    store: Store,
    catalogue: Catalogue,
    outputs: LocalOutputStore,
    make: MakeFinishing,
    jobs: Any,
    wanted_by: list[str],
    state: str,
) -> None:
    finishing = make(outputs)
    finishing.settings = finishing.settings.model_copy(update={"fail_blank_for_tenants": wanted_by})
    (job,) = jobs(count=2)
    finishing.submit(rendered(job, blank=True), pipeline(catalogue))
    finishing.close()
    row = job_row(store, job)
    assert row.state == state
    assert len(finishing.leased_jobs) == 0
    if state == "failed":
        assert (row.error_code, files(outputs)) == ("blank_output", set())
        assert row.error_detail is not None
        assert row.error_detail.startswith("images 0, 1: one plain colour")


def test_an_attempt_that_was_cancelled_leaves_no_file(
    store: Store, catalogue: Catalogue, outputs: LocalOutputStore, make: MakeFinishing, jobs: Any
) -> None:
    finishing = make(outputs)
    (job,) = jobs(count=2)
    cancel_job(store, job.id, DEFAULT_TENANT)
    finishing.submit(rendered(job), pipeline(catalogue))
    finishing.close()
    assert job_row(store, job).state == "cancelled"
    assert files(outputs) == set()
    assert len(finishing.leased_jobs) == 0


@pytest.mark.parametrize(
    "error", [OperationalError("COMMIT", {}, Exception("no answer")), OSError("no answer"), ValueError("a mistake")], ids=type
)
def test_after_a_commit_whose_answer_was_lost_the_files_stay(
    *,
    store: Store,
    catalogue: Catalogue,
    outputs: LocalOutputStore,
    make: MakeFinishing,
    jobs: Any,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    committed = finish.succeed

    def commit_and_break(*args: Any, **more: Any) -> list[str]:
        committed(*args, **more)
        raise error

    monkeypatch.setattr(finish, "succeed", commit_and_break)
    finishing = make(outputs)
    (job,) = jobs(count=2)
    finishing.submit(rendered(job), pipeline(catalogue))
    finishing.close()
    assert job_row(store, job).state == "succeeded"
    with store.read() as session:
        assert set(session.scalars(select(Image.storage_key))) == files(outputs)
    assert len(files(outputs)) == 2
    assert len(finishing.leased_jobs) == 0


class OneFits(LocalOutputStore):
    """A disk that has room for one picture."""

    def write(self, key: str, data: bytes) -> None:
        if files(self):
            raise OSError(28, "No space left on device")
        super().write(key, data)


def test_a_disk_that_fills_up_between_two_pictures_keeps_neither(
    store: Store, catalogue: Catalogue, settings: Settings, make: MakeFinishing, jobs: Any
) -> None:
    outputs = OneFits(settings.outputs)
    finishing = make(outputs)
    (job,) = jobs(count=2)
    finishing.submit(rendered(job), pipeline(catalogue))
    finishing.close()
    assert job_row(store, job).state == "queued"
    assert files(outputs) == set()


def test_a_store_that_takes_nothing_sends_the_job_back(
    store: Store, catalogue: Catalogue, outputs: LocalOutputStore, make: MakeFinishing, jobs: Any
) -> None:
    outputs.root.mkdir(parents=True)
    (outputs.root / "jobs").write_bytes(b"in the way of the folder")
    finishing = make(outputs)
    (job,) = jobs()
    finishing.submit(rendered(job), pipeline(catalogue))
    finishing.close()
    row = job_row(store, job)
    assert row.state == "queued"
    assert row.not_before > 0
    with store.read() as session:
        attempt = session.get_one(Attempt, (job.id, 1))
    assert attempt.outcome == "retry"
    assert attempt.reason is not None
    assert attempt.reason.startswith("storage: the picture could not be stored")
    assert files(outputs) == {"jobs"}


def test_a_failed_job_ends_with_its_reason(store: Store, outputs: LocalOutputStore, make: MakeFinishing, jobs: Any) -> None:
    finishing = make(outputs)
    (job,) = jobs()
    finishing.fail(job, Failure(FailureClass.MODEL, "model_invalid", "the weights are not there"))
    finishing.close()
    row = job_row(store, job)
    assert (row.state, row.error_code, row.error_detail) == ("failed", "model_invalid", "the weights are not there")


class SlowOutputStore(LocalOutputStore):
    """A store that takes nothing until it is let."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.let = threading.Event()

    def write(self, key: str, data: bytes) -> None:
        self.let.wait()
        super().write(key, data)


def test_large_pictures_wait_sooner_and_none_waits_for_ever() -> None:
    limit = InFlightLimit(min_jobs=2, max_jobs=4, max_bytes=100)
    for nbytes in (60, 60):
        limit.acquire(nbytes)  # over the bytes, but always let in
    let_in = threading.Event()

    def third() -> None:
        limit.acquire(10)
        let_in.set()

    thread = threading.Thread(target=third)
    thread.start()
    assert not let_in.wait(0.05), "two large pictures are all that fits"
    limit.release(60)
    assert let_in.wait(10)
    thread.join()
    limit.acquire(20)
    limit.release(60)
    limit.acquire(20)  # four small ones go together


def test_a_slow_store_makes_submit_wait(
    store: Store, catalogue: Catalogue, settings: Settings, make: MakeFinishing, jobs: Any
) -> None:
    slow = SlowOutputStore(settings.outputs)
    finishing = make(slow)
    limit = JOBS_PER_THREAD * settings.postprocess_threads + settings.max_running_set_images
    claimed = jobs(number=limit + 1)
    for job in claimed[:-1]:
        finishing.submit(rendered(job), pipeline(catalogue))
    last = threading.Thread(target=finishing.submit, args=(rendered(claimed[-1]), pipeline(catalogue)))
    last.start()
    last.join(0.2)
    assert last.is_alive(), "submit must block while the pool is full"
    slow.let.set()
    last.join(10)
    assert not last.is_alive()
    finishing.close()
    assert {job_row(store, job).state for job in claimed} == {"succeeded"}
