"""Orphan collection: lost attempts' files go, committed and running ones stay."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from imagefarm.catalogue import Catalogue
from imagefarm.output_store import TEMPORARY, LocalOutputStore, image_key
from imagefarm.recipe import JobRequest
from imagefarm.settings import Settings
from imagefarm.store import Store
from imagefarm.store.migrate import DEFAULT_TENANT
from scheduler.queue.admission import submit_jobs
from scheduler.queue.claim import ClaimedJob, ClaimLimits, claim
from scheduler.queue.finish import FinishedChannel, FinishedImage, release, succeed
from scheduler.queue.new_job import make_job
from scheduler.recovery.orphan_files import collect_orphan_files

AGE = 600.0


@pytest.fixture
def outputs(tmp_path: Path) -> LocalOutputStore:
    return LocalOutputStore(tmp_path / "outputs")


def claimed(store: Store, catalogue: Catalogue, settings: Settings, number: int) -> list[ClaimedJob]:
    jobs = [make_job(catalogue, JobRequest(prompt=f"mug {n}"), DEFAULT_TENANT, costs={}) for n in range(number)]
    with store.write() as session:
        submit_jobs(session, jobs, settings)
    jobs = claim(store, "wrk_a", serves=["demo"], limits=ClaimLimits(images=number, quantum_s=100))
    assert len(jobs) == number
    return jobs


def put(outputs: LocalOutputStore, job: ClaimedJob, *, attempt: int | None = None, age: float = AGE) -> str:
    key = image_key(job.id, 0, attempt or job.attempt)
    outputs.write(key, b"x")
    os.utime(outputs.path(key), (time.time() - age,) * 2)
    return key


def finished(key: str) -> FinishedImage:
    return FinishedImage(0, 1, key, "png", 64, 64, 1, "a" * 64, "b" * 64, 1.0)


def test_only_files_that_nobody_can_commit_are_removed(
    store: Store, catalogue: Catalogue, settings: Settings, outputs: LocalOutputStore
) -> None:
    done, running, lost, fresh = claimed(store, catalogue, settings, 4)
    kept = {put(outputs, done), put(outputs, running), put(outputs, fresh, age=0)}
    succeed(store, done, [finished(image_key(done.id, 0, 1))], actual_s=0.1)
    release(store, [lost], "drain")
    orphan = put(outputs, lost)
    release(store, [fresh], "drain")
    stranger = "jobs/README"
    outputs.write(stranger, b"not a picture")
    os.utime(outputs.path(stranger), (time.time() - AGE,) * 2)
    asset = "assets/aa/asset.png"
    outputs.write(asset, b"sent in")
    os.utime(outputs.path(asset), (time.time() - AGE,) * 2)

    assert collect_orphan_files(store, outputs, older_than_s=300) == 1
    assert {stored.key for stored in outputs.walk()} == kept | {stranger, asset}
    assert not outputs.path(orphan).exists()
    assert collect_orphan_files(store, outputs, older_than_s=300) == 0


def test_an_earlier_attempts_file_goes_while_the_next_attempt_runs(
    store: Store, catalogue: Catalogue, settings: Settings, outputs: LocalOutputStore
) -> None:
    (first,) = claimed(store, catalogue, settings, 1)
    release(store, [first], "drain")
    (second,) = claim(store, "wrk_b", serves=["demo"], limits=ClaimLimits(images=1))
    old, new = put(outputs, first), put(outputs, second)
    assert collect_orphan_files(store, outputs, older_than_s=300) == 1
    assert not outputs.path(old).exists()
    assert outputs.path(new).exists()


def test_the_files_of_a_pictures_channels_stay(
    store: Store, catalogue: Catalogue, settings: Settings, outputs: LocalOutputStore
) -> None:
    (job,) = claimed(store, catalogue, settings, 1)
    key, of_channel = put(outputs, job), image_key(job.id, 0, 1, "webp", channel="story")
    of_another = image_key(job.id, 0, 1, "webp", channel="shop")
    for each in (of_channel, of_another):
        outputs.write(each, b"x")
        os.utime(outputs.path(each), (time.time() - AGE,) * 2)
    channel = FinishedChannel("story", of_channel, "webp", 64, 64, 1, "c" * 64)
    succeed(store, job, [replace(finished(key), channels=(channel,))], actual_s=0.1)
    assert collect_orphan_files(store, outputs, older_than_s=300) == 1
    assert {stored.key for stored in outputs.walk()} == {key, of_channel}


def test_what_is_committed_while_it_is_asked_for_stays(
    store: Store, catalogue: Catalogue, settings: Settings, outputs: LocalOutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = claimed(store, catalogue, settings, 1)
    key, looked = put(outputs, job), store.read

    @contextmanager
    def commit_after_the_first_look() -> Iterator[Session]:
        with looked() as session:
            yield session
        monkeypatch.setattr(store, "read", looked)
        succeed(store, job, [finished(key)], actual_s=0.1)

    monkeypatch.setattr(store, "read", commit_after_the_first_look)
    assert collect_orphan_files(store, outputs, older_than_s=300) == 0
    assert outputs.path(key).exists()


def test_what_a_dead_writer_left_half_written_goes_too(store: Store, outputs: LocalOutputStore) -> None:
    folder = outputs.root / TEMPORARY
    folder.mkdir(parents=True)
    for name, age in (("dead", AGE), ("alive", 0.0)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    assert collect_orphan_files(store, outputs, older_than_s=300) == 1
    assert [path.name for path in folder.iterdir()] == ["alive"]
