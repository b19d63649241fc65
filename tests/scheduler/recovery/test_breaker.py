"""The breaker: a bad worker is quarantined, a bad batch is held, and neither for the other's fault."""

from __future__ import annotations

from sqlalchemy import insert, select, update

from imagefarm.states import BatchState, WorkerState
from imagefarm.store import db_now
from imagefarm.store.models import Attempt, Batch, Event, Job, Worker
from scheduler.batches import lifecycle
from scheduler.queue.finish import fail
from scheduler.queue.retry import Failure, FailureClass
from scheduler.queue.workers import WorkerIdentity, mark_offline, register, set_desired_state
from scheduler.recovery.breaker import BATCH_FAILURES, WINDOW_S, WORKER_FAILURES
from scheduler.wiring import make_pending_reasons
from tests.small_farm import SmallFarm

DEVICE = Failure(FailureClass.INFRASTRUCTURE, "device", "CUDA error: an illegal memory access")
INPUT = Failure(FailureClass.INPUT, "bad_prompt", "the prompt is too long for the model")


def desired_state(farm: SmallFarm, worker_id: str) -> str:
    with farm.store.read() as session:
        return session.get_one(Worker, worker_id).desired_state


def fail_on(farm: SmallFarm, worker: str, number: int, failure: Failure) -> None:
    for _ in range(number):
        (job,) = farm.claim(worker, images=1)
        fail(farm.store, job, failure, farm.settings)
        farm.set(job.id, not_before=farm.store.now() + 3600)  # on a slow machine it would come back in between


def test_a_worker_on_which_all_fails_is_quarantined(farm: SmallFarm) -> None:
    bad, good = farm.worker("wrk_bad"), farm.worker("wrk_good")
    farm.submit(WORKER_FAILURES + 8)
    fail_on(farm, bad, WORKER_FAILURES, DEVICE)
    assert farm.sweep().stopped.workers == []  # nothing succeeded anywhere, so the worker may not be the cause
    for job in farm.claim(good):
        farm.finish(job)
    assert farm.sweep().stopped.workers == []  # afterwards: perhaps it was the disk of them all
    fail_on(farm, bad, 1, DEVICE)
    assert farm.sweep().stopped.workers == [bad]
    assert desired_state(farm, bad) == WorkerState.QUARANTINED
    assert desired_state(farm, good) == WorkerState.READY
    assert farm.claim(bad) == []
    assert farm.sweep().stopped.workers == []


def test_a_worker_that_died_once_with_many_jobs_is_not_to_blame(farm: SmallFarm) -> None:
    unlucky, good = farm.worker("wrk_unlucky"), farm.worker("wrk_good")
    farm.submit(2 * WORKER_FAILURES)
    assert len(farm.claim(unlucky, images=WORKER_FAILURES, quantum_s=60)) == WORKER_FAILURES
    for job in farm.claim(good):
        farm.finish(job)
    assert mark_offline(farm.store, unlucky, farm.settings, "killed", clean=False) == WORKER_FAILURES
    for job in farm.claim(good):
        farm.finish(job)
    again = WorkerIdentity(id="wrk_2nd", name=unlucky, host="here", pid=2, device="cpu", version="0", serves=farm.serves)
    register(farm.store, again)
    fail_on(farm, again.id, 1, DEVICE)
    assert farm.sweep().stopped.workers == [], "one death and one failure, though six jobs were there"


def test_jobs_that_fail_by_their_own_fault_quarantine_nobody(farm: SmallFarm) -> None:
    one, two = farm.worker("wrk_1"), farm.worker("wrk_2")
    farm.submit(2 * WORKER_FAILURES)
    fail_on(farm, one, WORKER_FAILURES - 1, INPUT)
    for job in farm.claim(two):
        farm.finish(job)
    fail_on(farm, one, 1, INPUT)
    assert farm.sweep().stopped.workers == []


def test_one_job_that_fails_again_and_again_quarantines_nobody(farm: SmallFarm) -> None:
    one, two = farm.worker("wrk_1"), farm.worker("wrk_2")
    (bad,) = farm.submit(1)
    for number in range(WORKER_FAILURES):
        farm.set(bad, not_before=0.0)
        fail_on(farm, one, 1, DEVICE)
        if number == 1:
            farm.submit(1)
            for job in farm.claim(two):
                farm.finish(job)
    assert farm.job(bad).attempt == WORKER_FAILURES
    assert farm.sweep().stopped.workers == []


def test_a_few_failures_on_each_of_many_workers_quarantine_nobody(farm: SmallFarm) -> None:
    workers = [farm.worker(f"wrk_{number}") for number in range(WORKER_FAILURES)]
    good = farm.worker("wrk_good")
    farm.submit(5 * WORKER_FAILURES)
    for _ in range(2):
        for worker in workers:
            fail_on(farm, worker, 1, DEVICE)
        farm.finish(farm.claim(good, images=1)[0])
    assert farm.sweep().stopped.workers == []


def test_what_succeeds_on_a_worker_itself_is_no_success_elsewhere(farm: SmallFarm) -> None:
    one = farm.worker("wrk_1")
    farm.worker("wrk_idle")
    farm.submit(2 * WORKER_FAILURES)
    fail_on(farm, one, 2, DEVICE)
    farm.finish(farm.claim(one, images=1)[0])
    fail_on(farm, one, WORKER_FAILURES - 2, DEVICE)
    assert farm.sweep().stopped.workers == []


def test_the_last_sound_worker_is_left_alone(farm: SmallFarm) -> None:
    bad, last = farm.worker("wrk_bad"), farm.worker("wrk_last")
    farm.submit(4 * WORKER_FAILURES)
    fail_on(farm, bad, WORKER_FAILURES - 1, DEVICE)
    for job in farm.claim(last, images=1):
        farm.finish(job)
    fail_on(farm, bad, 1, DEVICE)
    assert farm.sweep().stopped.workers == [bad]
    fail_on(farm, last, WORKER_FAILURES, DEVICE)
    assert farm.sweep().stopped.workers == []


def test_a_worker_that_is_resumed_gets_another_chance(farm: SmallFarm) -> None:
    bad, good = farm.worker("wrk_bad"), farm.worker("wrk_good")
    farm.submit(4 * WORKER_FAILURES)
    fail_on(farm, bad, WORKER_FAILURES - 1, DEVICE)
    for job in farm.claim(good):
        farm.finish(job)
    fail_on(farm, bad, 1, DEVICE)
    assert farm.sweep().stopped.workers == [bad]
    with farm.store.read() as session:
        assert "5 jobs failed on it in 10 minutes, while 4 succeeded elsewhere" in session.get_one(Worker, bad).reason
        told = session.scalars(select(Event.data).where(Event.subject == bad, Event.kind == "worker.quarantined")).all()
    assert [data["by"] for data in told] == ["breaker"]
    set_desired_state(farm.store, bad, WorkerState.READY, by="operator")
    assert farm.sweep().stopped.workers == [], "failures before the resume do not count"
    fail_on(farm, bad, WORKER_FAILURES - 1, DEVICE)
    for job in farm.claim(good):
        farm.finish(job)
    fail_on(farm, bad, 1, DEVICE)
    assert farm.sweep().stopped.workers == [bad], "and what came after counts"


def test_a_worker_on_which_some_fails_and_more_succeeds_is_left_alone(farm: SmallFarm) -> None:
    fair, good = farm.worker("wrk_fair"), farm.worker("wrk_good")
    farm.submit(4 * WORKER_FAILURES)
    for job in farm.claim(fair, images=4):
        farm.finish(job)
    fail_on(farm, fair, WORKER_FAILURES - 1, DEVICE)
    for job in farm.claim(good):
        farm.finish(job)
    fail_on(farm, fair, 1, DEVICE)
    assert farm.sweep().stopped.workers == []


def test_what_failed_long_ago_and_who_takes_no_work_himself_are_no_proof(farm: SmallFarm) -> None:
    bad, good = farm.worker("wrk_bad"), farm.worker("wrk_good")
    farm.submit(4 * WORKER_FAILURES)
    fail_on(farm, bad, WORKER_FAILURES - 1, DEVICE)
    for job in farm.claim(good):
        farm.finish(job)
    fail_on(farm, bad, 1, DEVICE)
    set_desired_state(farm.store, good, WorkerState.DRAINING, by="operator")
    assert farm.sweep().stopped.workers == [], "then nobody would be left"
    set_desired_state(farm.store, good, WorkerState.READY, by="operator")
    with farm.store.write() as session:
        session.execute(update(Attempt).values(ended_at=Attempt.ended_at - WINDOW_S - 1))
    assert farm.sweep().stopped.workers == []
    with farm.store.write() as session:
        session.execute(update(Attempt).values(ended_at=Attempt.ended_at + WINDOW_S + 1))
    assert farm.sweep().stopped.workers == [bad]


def batch_of(farm: SmallFarm, jobs: int) -> None:
    with farm.store.write() as session:
        session.execute(
            insert(Batch).values(
                id="batch_1",
                tenant_id="tenant_default",
                name="mugs",
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
    for job_id in farm.submit(jobs):
        farm.set(job_id, batch_id="batch_1")


def test_a_batch_whose_rows_all_fail_alike_is_held(farm: SmallFarm) -> None:
    one, two = farm.worker("wrk_1"), farm.worker("wrk_2")
    batch_of(farm, 2 * BATCH_FAILURES + 20)
    fail_on(farm, one, BATCH_FAILURES - 1, INPUT)
    assert farm.sweep().stopped.batches == []
    fail_on(farm, one, 1, INPUT)
    assert farm.sweep().stopped.batches == [], "perhaps it is the worker"
    fail_on(farm, two, 1, INPUT)
    report = farm.sweep()
    assert report.stopped.batches == ["batch_1"]
    assert report.stopped.workers == []
    assert farm.states() == {"failed": BATCH_FAILURES + 1, "held": BATCH_FAILURES + 19}
    with farm.store.read() as session:
        batch = session.scalars(select(Batch)).one()
        assert (batch.state, batch.options) == (BatchState.PAUSED, {"stopped": {"error": "bad_prompt", "failed": 9}})
        told = session.scalars(select(Event.data).where(Event.kind == "batch.stopped")).all()
        held = session.scalars(select(Job).where(Job.state == "held")).all()
        reason = make_pending_reasons(farm.settings).explain(session, held[0])
    assert told == [{"by": "breaker", "error": "bad_prompt", "failed": 9}]
    assert reason.message == "Held: batch 'mugs' was stopped because 9 of its jobs failed with bad_prompt."
    farm.check_books()

    lifecycle.resume(farm.store, "batch_1", "tenant_default")
    assert farm.sweep().stopped.batches == [], "failures before the resume do not count"
    with farm.store.read() as session:
        assert session.scalars(select(Batch.options)).one() == {}
    fail_on(farm, one, BATCH_FAILURES - 1, INPUT)
    fail_on(farm, two, 1, INPUT)
    assert farm.sweep().stopped.batches == ["batch_1"], "and what came after counts"


def test_a_batch_of_which_a_few_fail_alike_goes_on(farm: SmallFarm) -> None:
    one, two = farm.worker("wrk_1"), farm.worker("wrk_2")
    batch_of(farm, 2 * BATCH_FAILURES)
    fail_on(farm, one, BATCH_FAILURES - 2, INPUT)
    fail_on(farm, two, 1, INPUT)
    assert farm.sweep().stopped.batches == []
    fail_on(farm, two, 1, INPUT)
    assert farm.sweep().stopped.batches == ["batch_1"]


def test_a_batch_whose_rows_fail_each_in_its_own_way_goes_on(farm: SmallFarm) -> None:
    workers = [farm.worker("wrk_1"), farm.worker("wrk_2")]
    batch_of(farm, 2 * BATCH_FAILURES)
    for worker in workers:
        for code in ("bad_prompt", "bad_picture"):
            fail_on(farm, worker, BATCH_FAILURES // 2 - 1, Failure(FailureClass.INPUT, code, "made up"))
    assert farm.states()["failed"] > BATCH_FAILURES
    assert farm.sweep().stopped.batches == []


def test_where_there_is_one_worker_it_is_enough(farm: SmallFarm) -> None:
    farm.worker("wrk_1")
    batch_of(farm, BATCH_FAILURES + 1)
    fail_on(farm, "wrk_1", BATCH_FAILURES, INPUT)
    assert farm.sweep().stopped.batches == ["batch_1"]


def test_a_batch_of_which_more_succeeds_goes_on(farm: SmallFarm) -> None:
    farm.worker("wrk_1")
    batch_of(farm, 3 * BATCH_FAILURES + 8)
    for _ in range(2):
        for job in farm.claim("wrk_1"):
            farm.finish(job)
    fail_on(farm, "wrk_1", BATCH_FAILURES, INPUT)
    assert farm.sweep().stopped.batches == []


def test_jobs_that_brought_their_worker_down_say_nothing_of_the_other_rows(farm: SmallFarm) -> None:
    farm.worker("wrk_1")
    batch_of(farm, BATCH_FAILURES + 1)
    fail_on(farm, "wrk_1", BATCH_FAILURES, Failure(FailureClass.INPUT, "poison", "made up"))
    assert farm.sweep().stopped.batches == []
