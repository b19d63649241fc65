"""The breaker: a bad worker is quarantined, a bad batch is held, and neither for the other's fault."""

from __future__ import annotations

from sqlalchemy import insert, select

from imagefarm.states import BatchState, WorkerState
from imagefarm.store import db_now
from imagefarm.store.models import Batch, Worker
from scheduler.breaker import BATCH_FAILURES, WORKER_FAILURES
from scheduler.finish import fail
from scheduler.retry import Failure, FailureClass
from scheduler.sweep import sweep
from scheduler.workers import gone
from tests.small_farm import SmallFarm

DEVICE = Failure(FailureClass.INFRASTRUCTURE, "device", "CUDA error: an illegal memory access")
INPUT = Failure(FailureClass.INPUT, "bad_prompt", "the prompt is too long for the model")


def wanted(farm: SmallFarm, worker_id: str) -> str:
    with farm.store.read() as session:
        return session.get_one(Worker, worker_id).wanted


def fail_on(farm: SmallFarm, worker: str, number: int, failure: Failure) -> None:
    failed: set[str] = set()
    while len(failed) < number:  # on a slow machine one that is to be tried again may come back in between
        (job,) = farm.claim(worker, images=1)
        fail(farm.store, job, failure, farm.settings)
        failed.add(job.id)


def test_a_worker_on_which_all_fails_is_quarantined(farm: SmallFarm) -> None:
    bad, good = farm.worker("wrk_bad"), farm.worker("wrk_good")
    farm.submit(WORKER_FAILURES + 8)
    fail_on(farm, bad, WORKER_FAILURES, DEVICE)
    assert sweep(farm.store, farm.settings).stopped.workers == []  # nothing succeeded anywhere: who knows whose fault
    for job in farm.claim(good):
        farm.finish(job)
    assert sweep(farm.store, farm.settings).stopped.workers == []  # afterwards: perhaps it was the disk of them all
    fail_on(farm, bad, 1, DEVICE)
    assert sweep(farm.store, farm.settings).stopped.workers == [bad]
    assert wanted(farm, bad) == WorkerState.QUARANTINED
    assert wanted(farm, good) == WorkerState.READY
    assert farm.claim(bad) == []
    assert sweep(farm.store, farm.settings).stopped.workers == []


def test_a_worker_that_died_once_with_many_jobs_is_not_to_blame(farm: SmallFarm) -> None:
    unlucky, good = farm.worker("wrk_unlucky"), farm.worker("wrk_good")
    farm.submit(2 * WORKER_FAILURES)
    assert len(farm.claim(unlucky, images=WORKER_FAILURES, quantum_s=60)) == WORKER_FAILURES
    for job in farm.claim(good):
        farm.finish(job)
    assert gone(farm.store, unlucky, farm.settings, "killed", clean=False) == WORKER_FAILURES
    assert sweep(farm.store, farm.settings).stopped.workers == []


def test_jobs_that_fail_by_their_own_fault_quarantine_nobody(farm: SmallFarm) -> None:
    one, two = farm.worker("wrk_1"), farm.worker("wrk_2")
    farm.submit(2 * WORKER_FAILURES)
    fail_on(farm, one, WORKER_FAILURES, INPUT)
    for job in farm.claim(two):
        farm.finish(job)
    assert sweep(farm.store, farm.settings).stopped.workers == []


def test_the_last_sound_worker_is_left_alone(farm: SmallFarm) -> None:
    bad, last = farm.worker("wrk_bad"), farm.worker("wrk_last")
    farm.submit(4 * WORKER_FAILURES)
    fail_on(farm, bad, WORKER_FAILURES - 1, DEVICE)
    for job in farm.claim(last, images=1):
        farm.finish(job)
    fail_on(farm, bad, 1, DEVICE)
    assert sweep(farm.store, farm.settings).stopped.workers == [bad]
    fail_on(farm, last, WORKER_FAILURES, DEVICE)
    assert sweep(farm.store, farm.settings).stopped.workers == []


def test_a_batch_whose_rows_all_fail_alike_is_held(farm: SmallFarm) -> None:
    one, two = farm.worker("wrk_1"), farm.worker("wrk_2")
    with farm.store.write() as session:
        session.execute(
            insert(Batch).values(
                id="batch_1",
                tenant_id="tenant_default",
                name="b",
                state=BatchState.QUEUED,
                template="",
                options={},
                rows=1,
                accepted=1,
                rejected=0,
                errors=[],
                created_at=db_now(),
            )
        )
    for job_id in farm.submit(BATCH_FAILURES + 20):
        farm.set(job_id, batch_id="batch_1")
    fail_on(farm, one, BATCH_FAILURES - 1, INPUT)
    assert sweep(farm.store, farm.settings).stopped.batches == []
    fail_on(farm, two, 1, INPUT)
    report = sweep(farm.store, farm.settings)
    assert report.stopped.batches == ["batch_1"]
    assert report.stopped.workers == []
    assert farm.states() == {"failed": BATCH_FAILURES, "held": 20}
    with farm.store.read() as session:
        assert session.scalar(select(Batch.state)) == BatchState.PAUSED
    farm.check_books()
