"""Orphan collection: lost attempts' files go, committed and running ones stay."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from imagefarm.catalogue import Catalogue
from imagefarm.outputs import LocalOutputs, picture_key
from imagefarm.recipe import JobRequest
from imagefarm.settings import Settings
from imagefarm.store import Store
from imagefarm.store.migrate import DEFAULT_TENANT
from scheduler.admission import prepare, submit
from scheduler.claim import ClaimedJob, ClaimLimits, claim
from scheduler.finish import FinishedImage, release, succeed
from scheduler.orphans import collect_orphans

AGE = 600.0


@pytest.fixture
def outputs(tmp_path: Path) -> LocalOutputs:
    return LocalOutputs(tmp_path / "outputs")


def claimed(store: Store, catalogue: Catalogue, settings: Settings, number: int) -> list[ClaimedJob]:
    rows = [prepare(catalogue, JobRequest(prompt=f"mug {n}"), DEFAULT_TENANT, costs={}) for n in range(number)]
    with store.write() as session:
        submit(session, rows, settings)
    jobs = claim(store, "wrk_a", serves=["demo"], limits=ClaimLimits(images=number, quantum_s=100))
    assert len(jobs) == number
    return jobs


def put(outputs: LocalOutputs, job: ClaimedJob, *, attempt: int | None = None, age: float = AGE) -> str:
    key = picture_key(job.id, 0, attempt or job.attempt)
    outputs.write(key, b"x")
    os.utime(outputs.path(key), (time.time() - age,) * 2)
    return key


def finished(key: str) -> FinishedImage:
    return FinishedImage(0, 1, key, "png", 64, 64, 1, "a" * 64, "b" * 64, 1.0)


def test_only_files_that_nobody_can_commit_are_removed(
    store: Store, catalogue: Catalogue, settings: Settings, outputs: LocalOutputs
) -> None:
    done, running, lost, fresh = claimed(store, catalogue, settings, 4)
    kept = {put(outputs, done), put(outputs, running), put(outputs, fresh, age=0)}
    succeed(store, done, [finished(picture_key(done.id, 0, 1))], actual_s=0.1)
    release(store, [lost], "drain")
    orphan = put(outputs, lost)
    release(store, [fresh], "drain")
    stranger = "jobs/README"
    outputs.write(stranger, b"not a picture")
    os.utime(outputs.path(stranger), (time.time() - AGE,) * 2)
    asset = "assets/aa/asset.png"
    outputs.write(asset, b"sent in")
    os.utime(outputs.path(asset), (time.time() - AGE,) * 2)

    assert collect_orphans(store, outputs, older_than_s=300) == 1
    assert {stored.key for stored in outputs.walk()} == kept | {stranger, asset}
    assert not outputs.path(orphan).exists()
    assert collect_orphans(store, outputs, older_than_s=300) == 0


def test_an_earlier_attempts_file_goes_while_the_next_attempt_runs(
    store: Store, catalogue: Catalogue, settings: Settings, outputs: LocalOutputs
) -> None:
    (first,) = claimed(store, catalogue, settings, 1)
    release(store, [first], "drain")
    (second,) = claim(store, "wrk_b", serves=["demo"], limits=ClaimLimits(images=1))
    old, new = put(outputs, first), put(outputs, second)
    assert collect_orphans(store, outputs, older_than_s=300) == 1
    assert not outputs.path(old).exists()
    assert outputs.path(new).exists()
