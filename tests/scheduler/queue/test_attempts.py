"""Attempts: each is kept with its worker, its end and the reason; what failed comes back as its class says, and not at once."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from imagefarm.states import JobState
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Attempt, Job, Model
from scheduler.queue.cancel import cancel_job, retry_where
from scheduler.queue.finish import LEARNING_RATE, fail, release
from scheduler.queue.lease import expire_owner
from scheduler.queue.retry import INFRASTRUCTURE_ATTEMPTS_FACTOR, MAX_BACKOFF_S, Failure, FailureClass, backoff_s
from scheduler.queue.workers import report_model
from tests.small_farm import SmallFarm


def test_every_attempt_is_kept_with_its_worker_and_its_reason(farm: SmallFarm) -> None:
    (job_id,) = farm.submit(1)

    def claim(owner: str):  # type: ignore[no-untyped-def]
        farm.set(job_id, not_before=0.0)
        (job,) = farm.claim(owner)
        return job

    release(farm.store, [claim("wrk_a")], "the worker shuts down")
    fail(farm.store, claim("wrk_b"), Failure(FailureClass.INFRASTRUCTURE, "storage", "No space left"), farm.settings)
    claim("wrk_c")
    expire_owner(farm.store, "wrk_c", farm.settings, "its process ended with signal 9")
    claim("wrk_d")
    cancel_job(farm.store, job_id, DEFAULT_TENANT, by="a person")
    assert farm.job(job_id).crashes == 1
    farm.set(job_id, not_before=farm.store.now() + 3600)
    with farm.store.write() as session:
        retry_where(session, [Job.id == job_id], by="a person")
    assert (farm.job(job_id).crashes, farm.job(job_id).not_before) == (0, 0.0), "as new work"
    fail(farm.store, claim("wrk_e"), Failure(FailureClass.INPUT, "bad_picture", "cannot be read"), farm.settings)
    with farm.store.write() as session:
        retry_where(session, [Job.id == job_id], by="a person")
    farm.finish(claim("wrk_f"))
    with farm.store.read() as session:
        kept = session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.attempt)).all()
    assert [(one.attempt, one.owner, one.outcome, one.reason) for one in kept] == [
        (1, "wrk_a", "released", "the worker shuts down"),
        (2, "wrk_b", "retry", "storage: No space left"),
        (3, "wrk_c", "crashed", "its process ended with signal 9"),
        (4, "wrk_d", "cancelled", "a person"),
        (5, "wrk_e", "failed", "bad_picture: cannot be read"),
        (6, "wrk_f", "succeeded", None),
    ]
    assert all(one.claimed_at <= (one.ended_at or 0) for one in kept)


@pytest.mark.parametrize(
    ("kind", "tries"),
    [
        (FailureClass.INPUT, 1),
        (FailureClass.MODEL, 1),
        (FailureClass.RESOURCE, 1),
        (FailureClass.UNKNOWN, 2),
        (FailureClass.INFRASTRUCTURE, 2 * INFRASTRUCTURE_ATTEMPTS_FACTOR),
    ],
)
def test_each_class_has_its_number_of_tries(farm: SmallFarm, kind: FailureClass, tries: int) -> None:
    farm.settings = farm.settings.model_copy(update={"max_attempts": 2})
    (job_id,) = farm.submit(1)
    for number in range(1, tries + 1):
        farm.set(job_id, not_before=0.0)
        (job,) = farm.claim("wrk_a")
        state = fail(farm.store, job, Failure(kind, "a_code", "a detail"), farm.settings)
        assert state == (JobState.QUEUED if number < tries else JobState.FAILED), number
    assert (farm.job(job_id).error_code, farm.job(job_id).error_detail) == ("a_code", "a detail")
    farm.check_books()


def test_tries_are_farther_and_farther_apart_and_never_all_at_once(farm: SmallFarm) -> None:
    assert [backoff_s(tries, jitter=1.0) for tries in (1, 2, 3, 7, 1000)] == [1, 2, 4, MAX_BACKOFF_S, MAX_BACKOFF_S]
    spread = {backoff_s(3) for _ in range(50)}
    assert len(spread) > 40
    assert min(spread) >= 2.0
    assert max(spread) <= 4.0
    (job_id,) = farm.submit(1)
    for least in (0.5, 1.0, 2.0):
        farm.set(job_id, not_before=0.0)
        (job,) = farm.claim("wrk_a")
        before = farm.store.now()
        fail(farm.store, job, Failure(FailureClass.UNKNOWN, "error", "x"), farm.settings)
        waits_until = farm.job(job_id).not_before
        assert before + least <= waits_until <= farm.store.now() + 2 * least, "on the database's clock"
        assert farm.claim("wrk_b") == [], "it waits in SQL, for every worker"


def test_a_job_that_was_cancelled_and_is_retried_has_all_its_tries_again(farm: SmallFarm) -> None:
    farm.settings = farm.settings.model_copy(update={"max_attempts": 2})
    (job_id,) = farm.submit(1)
    failure = Failure(FailureClass.UNKNOWN, "error", "x")
    fail(farm.store, farm.claim("wrk_a")[0], failure, farm.settings)
    farm.set(job_id, not_before=0.0)
    farm.claim("wrk_a")
    cancel_job(farm.store, job_id, DEFAULT_TENANT)
    with farm.store.write() as session:
        retry_where(session, [Job.id == job_id], by="a person")
    assert fail(farm.store, farm.claim("wrk_a")[0], failure, farm.settings) == JobState.QUEUED


def test_a_long_reason_is_cut_and_what_a_success_took_is_learnt(farm: SmallFarm) -> None:
    report_model(farm.store, "demo", "ready", cost_s=1.0)
    long, timed, untimed = farm.submit(3)
    jobs = {job.id: job for job in farm.claim("wrk_a", quantum_s=100.0)}
    fail(farm.store, jobs[long], Failure(FailureClass.INPUT, "bad_prompt", "x" * 5000), farm.settings)
    assert len(farm.job(long).error_detail or "") == 2000

    def cost_s() -> float | None:
        with farm.store.read() as session:
            return session.get_one(Model, "demo").cost_s

    farm.finish(jobs[untimed], actual_s=60.0)
    assert cost_s() == 1.0
    farm.finish(jobs[timed], actual_s=6.0, work=3.0)
    assert cost_s() == pytest.approx(1.0 + LEARNING_RATE * (2.0 - 1.0)), "of one default image"
