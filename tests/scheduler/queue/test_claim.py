"""Claims: which worker gets which jobs, which jobs are claimed together, and the fence."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import update

from imagefarm.errors import LeaseLost
from imagefarm.states import JobState, PriorityClass, WorkerState
from imagefarm.store.models import Attempt, Job
from scheduler.queue import lease, workers
from scheduler.queue.cancel import retry_where
from scheduler.queue.finish import fail, release
from scheduler.queue.retry import DEATHS_LATELY_S, Failure, FailureClass
from tests.small_farm import SmallFarm

MODEL_INVALID = Failure(FailureClass.MODEL, "model_invalid", "no such folder")
UNKNOWN = Failure(FailureClass.UNKNOWN, "error", "ValueError: x")


def test_a_claim_takes_the_oldest_that_go_together(farm: SmallFarm) -> None:
    first = farm.submit(3)
    farm.submit(2, model="sd15")
    jobs = farm.claim("wrk_a", quantum_s=100.0)
    assert [job.id for job in jobs] == first
    assert {job.attempt for job in jobs} == {1}
    farm.check_books()


def test_a_claim_stops_at_places_and_at_the_quantum(farm: SmallFarm) -> None:
    farm.submit(10, count=2)
    assert len(farm.claim("wrk_a", images=5)) == 2
    assert len(farm.claim("wrk_a", images=16, quantum_s=0.7)) == 2  # 0.3 s each
    assert len(farm.claim("wrk_a", images=16, quantum_s=0.01)) == 1  # at least one


def test_a_job_larger_than_the_cap_still_runs_alone(farm: SmallFarm) -> None:
    farm.submit(2, count=16)
    assert len(farm.claim("wrk_a", images=4)) == 1


def test_sizes_of_a_unet_are_not_mixed(farm: SmallFarm) -> None:
    farm.submit(1, model="sd15")
    farm.submit(1, model="sd15", width=768)
    farm.submit(1, model="sd15")
    jobs = farm.claim("wrk_a", quantum_s=100.0)
    assert [job.recipe.width for job in jobs] == [512, 512]


def test_a_running_set_is_joined_only_by_its_like(farm: SmallFarm) -> None:
    farm.submit(1, model="sd15", width=768)
    assert farm.claim("wrk_a", compat_key="sd15||512x512|cfg") == []
    assert len(farm.claim("wrk_a", compat_key="sd15||768x512|cfg")) == 1


def test_a_reserve_is_for_those_who_wait(farm: SmallFarm) -> None:
    farm.submit(1, priority="bulk")
    assert farm.claim("wrk_a", interactive_only=True) == []
    farm.submit(1)
    assert len(farm.claim("wrk_a", interactive_only=True)) == 1


def test_two_workers_never_get_the_same_job(farm: SmallFarm) -> None:
    ids = farm.submit(60)
    got: list[str] = []

    def work(owner: str) -> None:
        while jobs := farm.claim(owner, images=3):
            got.extend(job.id for job in jobs)

    threads = [threading.Thread(target=work, args=(f"wrk_{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(ids)
    farm.check_books()


def test_caps_hold(farm: SmallFarm) -> None:
    farm.submit(4)
    farm.claim("wrk_a", images=2)
    assert farm.claim("wrk_b", max_running_per_tenant=2) == []
    assert farm.claim("wrk_b", max_running_per_model={"demo": 2}) == []
    assert len(farm.claim("wrk_b", max_running_per_model={"demo": 3})) == 1, "also of those that would go together"


def test_a_flow_that_only_runs_saves_nothing_up(farm: SmallFarm) -> None:
    """Its long render is charged. Service of other flows while this flow has no queued jobs gives it no credit."""
    long, others = farm.tenant("long"), farm.tenant("others")
    bulk = PriorityClass.BULK
    farm.submit(1, tenant=long, priority=bulk)
    (rendering,) = farm.claim("wrk_a", images=1)
    assert rendering.tenant_id == long
    farm.submit(30, tenant=others, priority=bulk)
    served = [farm.claim("wrk_b", images=1)[0].tenant_id for _ in range(20)]
    assert set(served) == {others}
    farm.submit(10, tenant=long, priority=bulk)
    following = [farm.claim("wrk_b", images=1)[0].tenant_id for _ in range(8)]
    assert following.count(long) in (4, 5), following


def test_a_drained_or_quarantined_worker_gets_nothing(farm: SmallFarm) -> None:
    farm.submit(1)
    worker = farm.worker("wrk_a")
    for desired_state in (WorkerState.DRAINING, WorkerState.QUARANTINED):
        workers.set_desired_state(farm.store, worker, desired_state, by="operator")
        assert farm.claim(worker) == []
    workers.set_desired_state(farm.store, worker, WorkerState.READY, by="operator")
    assert len(farm.claim(worker)) == 1


def test_a_finished_job_is_fenced_and_repeatable(farm: SmallFarm) -> None:
    farm.submit(1, count=3)
    (job,) = farm.claim("wrk_a")
    ids = farm.finish(job)
    assert farm.finish(job) == ids  # the answer of the first commit was lost
    assert farm.images(job.id) == 3
    assert farm.job(job.id).state == JobState.SUCCEEDED
    farm.check_books()


def test_a_lost_attempt_cannot_write(farm: SmallFarm) -> None:
    farm.submit(1)
    (old,) = farm.claim("wrk_a")
    assert lease.expire_owner(farm.store, "wrk_a", farm.settings, "killed") == 1
    (new,) = farm.claim("wrk_b")
    assert new.attempt == 2
    with pytest.raises(LeaseLost):
        farm.finish(old)
    assert fail(farm.store, old, UNKNOWN, farm.settings) is None
    assert farm.images(old.id) == 0
    farm.finish(new)
    assert farm.images(old.id) == 1
    farm.check_books()


def test_renewal_tells_what_is_still_held(farm: SmallFarm) -> None:
    farm.submit(2)
    jobs = farm.claim("wrk_a")
    from scheduler.queue.cancel import cancel_job

    cancel_job(farm.store, jobs[0].id, jobs[0].tenant_id)
    assert lease.renew(farm.store, "wrk_a", [job.id for job in jobs], 30) == {jobs[1].id}
    assert lease.renew(farm.store, "wrk_b", [job.id for job in jobs], 30) == set()


def test_a_job_that_crashed_is_claimed_alone_and_is_poison_after_three(farm: SmallFarm) -> None:
    poison, *others = farm.submit(4)
    farm.set(poison, rank=-1)
    first = farm.claim("wrk_0")
    assert len(first) == 4  # nobody knows yet
    lease.expire_owner(farm.store, "wrk_0", farm.settings, "killed by signal 11")
    for number in (1, 2):
        jobs = farm.claim(f"wrk_{number}")
        assert [job.id for job in jobs] == [poison]
        lease.expire_owner(farm.store, f"wrk_{number}", farm.settings, "killed by signal 11")
    job = farm.job(poison)
    assert (job.state, job.error_code, job.crashes) == (JobState.FAILED, "poison", 3)
    while jobs := farm.claim("wrk_9"):
        for one in jobs:
            farm.finish(one)
    assert [farm.job(other).state for other in others] == [JobState.SUCCEEDED] * 3
    farm.check_books()


def test_failures_follow_their_class(farm: SmallFarm) -> None:
    farm.submit(2)
    bad_model, odd = farm.claim("wrk_a")
    assert fail(farm.store, bad_model, MODEL_INVALID, farm.settings) == JobState.FAILED
    assert fail(farm.store, odd, UNKNOWN, farm.settings) == JobState.QUEUED
    assert farm.claim("wrk_a") == []  # it backs off
    for attempt in range(2, farm.settings.max_attempts + 1):
        farm.set(odd.id, not_before=0.0)
        (again,) = farm.claim("wrk_a")
        assert again.attempt == attempt
        state = fail(farm.store, again, UNKNOWN, farm.settings)
    assert state == JobState.FAILED
    assert farm.job(odd.id).error_code == "error"
    farm.check_books()


def test_a_released_job_does_not_count_the_attempt_against_it(farm: SmallFarm) -> None:
    farm.submit(1)
    jobs = farm.claim("wrk_a")
    release(farm.store, jobs, "drain")
    job = farm.job(jobs[0].id)
    assert (job.state, job.crashes) == (JobState.QUEUED, 0)
    assert len(farm.claim("wrk_b")) == 1
    farm.check_books()


def test_only_attempts_that_failed_count(farm: SmallFarm) -> None:
    farm.submit(1)
    for number in range(farm.settings.max_attempts + 1):
        release(farm.store, farm.claim("wrk_a"), "drain")  # as often as workers are restarted
        if number < 2:
            farm.claim("wrk_dies")
            die(farm, "wrk_dies")
    for left in range(farm.settings.max_attempts, 0, -1):
        (job,) = farm.claim("wrk_a")
        assert fail(farm.store, job, UNKNOWN, farm.settings) == (JobState.QUEUED if left > 1 else JobState.FAILED)
        farm.set(job.id, not_before=0.0)
    with farm.store.write() as session:
        retry_where(session, [Job.id == job.id], by="test")
    (job,) = farm.claim("wrk_a")
    assert fail(farm.store, job, UNKNOWN, farm.settings) == JobState.QUEUED, "an operator's retry is new work"


def test_what_is_not_the_jobs_fault_is_tried_for_longer(farm: SmallFarm) -> None:
    farm.submit(1)
    storage = Failure(FailureClass.INFRASTRUCTURE, "storage", "No space left on device")
    for _ in range(farm.settings.max_attempts + 1):
        (job,) = farm.claim("wrk_a")
        assert fail(farm.store, job, storage, farm.settings) == JobState.QUEUED
        farm.set(job.id, not_before=0.0)


def die(farm: SmallFarm, owner: str, *, self_inflicted: bool = False) -> None:
    lease.expire_owner(farm.store, owner, farm.settings, "killed", self_inflicted=self_inflicted)


def test_where_workers_die_without_it_a_job_that_was_there_thrice_is_not_poison(farm: SmallFarm) -> None:
    farm.submit(1, model="sd15")
    farm.claim("wrk_storm", images=1)
    die(farm, "wrk_storm")
    farm.set(farm.submit(1)[0], rank=-1)
    for number in range(5):
        (job,) = farm.claim(f"wrk_{number}", images=1)
        assert job.model == "demo"
        die(farm, f"wrk_{number}")
        assert farm.job(job.id).state == JobState.QUEUED
    (job,) = farm.claim("wrk_last", images=1)
    die(farm, "wrk_last")
    assert (farm.job(job.id).state, farm.job(job.id).crashes) == (JobState.FAILED, 6)
    assert "died 6 times" in (farm.job(job.id).error_detail or "")


def test_deaths_of_long_ago_say_nothing_of_now(farm: SmallFarm) -> None:
    farm.submit(1, model="sd15")
    farm.claim("wrk_storm", images=1)
    die(farm, "wrk_storm")
    with farm.store.write() as session:
        session.execute(update(Attempt).values(ended_at=Attempt.ended_at - DEATHS_LATELY_S - 1))
    farm.set(farm.submit(1)[0], rank=-1)
    for number in range(farm.settings.max_crashes):
        (job,) = farm.claim(f"wrk_{number}", images=1)
        die(farm, f"wrk_{number}")
    assert farm.job(job.id).error_code == "poison"


def test_a_suspect_is_claimed_alone_wherever_it_stands(farm: SmallFarm) -> None:
    first, suspect, last = farm.submit(3)
    farm.set(suspect, crashes=1)
    key = farm.job(suspect).compat_key
    together = farm.claim("wrk_a", quantum_s=100.0)
    assert [job.id for job in together] == [first, last]
    assert farm.claim("wrk_a", compat_key=key) == [], "it joins nobody"
    farm.submit(1)
    assert [job.id for job in farm.claim("wrk_a", quantum_s=100.0)] == [suspect], "and nobody joins it"


def test_a_death_of_the_jobs_own_making_is_proof_wherever_workers_die(farm: SmallFarm) -> None:
    farm.submit(1, model="sd15")
    farm.claim("wrk_storm", images=1)
    die(farm, "wrk_storm")
    (poison,) = farm.submit(1)
    farm.set(poison, rank=-1)
    for number in range(3):
        (job,) = farm.claim(f"wrk_{number}", images=1)
        assert job.id == poison
        die(farm, f"wrk_{number}", self_inflicted=True)
    assert farm.job(poison).error_code == "poison"


def test_a_suspect_that_had_not_begun_is_not_blamed(farm: SmallFarm) -> None:
    (suspect,) = farm.submit(1)
    farm.set(suspect, crashes=2)
    neighbours = farm.submit(2)
    first = farm.claim("wrk_a")
    rest = farm.claim("wrk_a")  # the suspect came alone, and waits until these are stored
    assert sorted(job.id for job in (*first, *rest)) == sorted([suspect, *neighbours])
    die(farm, "wrk_a", self_inflicted=True)
    assert (farm.job(suspect).state, farm.job(suspect).crashes) == (JobState.QUEUED, 2)
    assert {farm.job(job_id).crashes for job_id in neighbours} == {1}
    farm.check_books()
