"""Leases are renewed only while steps advance. A worker learns that it lost a job. A hung child is killed."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from imagefarm.catalogue import Catalogue
from imagefarm.recipe import JobRequest
from imagefarm.settings import PROJECT_ROOT, Settings
from imagefarm.store import Store
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Job
from scheduler.queue.admission import submit_jobs
from scheduler.queue.cancel import cancel_job
from scheduler.queue.claim import ClaimedJob, ClaimLimits, claim
from scheduler.queue.new_job import make_job
from worker.child_monitor import ChildMonitor
from worker.leases.cancellations import CancelListener
from worker.leases.lease_keeper import LeaseKeeper
from worker.leases.leased_jobs import LeasedJobs
from worker.process import step_deadline as deadline_module
from worker.process.memory_limit import MemoryLimit
from worker.process.step_deadline import StepDeadline

OWNER = "wrk_a"


@pytest.fixture
def jobs(store: Store, catalogue: Catalogue, settings: Settings) -> list[ClaimedJob]:
    jobs = [make_job(catalogue, JobRequest(prompt=f"a mug {n}"), DEFAULT_TENANT, costs={}) for n in range(3)]
    with store.write() as session:
        submit_jobs(session, jobs, settings)
    return claim(store, OWNER, serves=["demo"], limits=ClaimLimits(images=3, quantum_s=100, lease_s=1.0))


@pytest.fixture
def leased(jobs: list[ClaimedJob]) -> LeasedJobs:
    leased_jobs = LeasedJobs()
    leased_jobs.add(jobs)
    return leased_jobs


@pytest.fixture
def start() -> Iterator[Callable[[LeaseKeeper], LeaseKeeper]]:
    started: list[LeaseKeeper] = []

    def run(keeper: LeaseKeeper) -> LeaseKeeper:
        started.append(keeper)
        keeper.start()
        return keeper

    yield run
    for keeper in started:
        keeper.stop()


def lease_of(store: Store, job: ClaimedJob) -> float:
    with store.read() as session:
        return session.get_one(Job, job.id).lease_until or 0.0


def wait_for(predicate: Callable[[], Any], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not predicate():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_leases_are_renewed_before_they_run_out(store: Store, jobs: list[ClaimedJob], leased: LeasedJobs, start: Any) -> None:
    first, began, lease_s = lease_of(store, jobs[0]), store.now(), 4.0
    start(LeaseKeeper(store, OWNER, lease_s, leased_jobs=leased, step_deadline=StepDeadline(lease_s), on_hang=lambda _: None))
    wait_for(lambda: all(lease_of(store, job) > first + lease_s / 2 for job in jobs))
    assert store.now() < began + lease_s


def test_while_the_database_is_away_nothing_is_lost(
    store: Store, jobs: list[ClaimedJob], leased: LeasedJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> set[str]:
        raise OperationalError("UPDATE", {}, Exception("the server closed the connection"))

    keeper = LeaseKeeper(store, OWNER, 1.0, leased_jobs=leased, step_deadline=StepDeadline(1.0))
    with monkeypatch.context() as while_away:
        while_away.setattr("worker.leases.lease_keeper.renew", away)
        keeper.renew_all()
    assert (keeper.failures, leased.take_lost(), len(leased)) == (1, [], len(jobs))
    before = lease_of(store, jobs[0])
    keeper.renew_all()
    assert lease_of(store, jobs[0]) > before
    assert leased.take_lost() == []


def test_a_cancel_is_seen_at_once_when_it_is_told(store: Store, jobs: list[ClaimedJob], leased: LeasedJobs, start: Any) -> None:
    keeper = start(
        LeaseKeeper(store, OWNER, 3600.0, leased_jobs=leased, step_deadline=StepDeadline(3600.0), on_hang=lambda _: None)
    )
    listener = CancelListener(None, "test", leased, keeper)  # type: ignore[arg-type]
    cancel_job(store, jobs[1].id, DEFAULT_TENANT)
    listener.heard(json.dumps({"kind": "job.progress", "subject": jobs[1].id}))
    listener.heard('{"kind": "job.cancelled", "subject": "job_of_another_worker"}')
    listener.heard('"job.cancelled" but not JSON')
    assert listener.failures == 1
    time.sleep(0.1)
    assert leased.take_lost() == [], "no event concerned this worker"
    listener.heard(json.dumps({"kind": "job.cancelled", "subject": jobs[1].id}))
    wait_for(lambda: leased._lost)
    assert [job.id for job in leased.take_lost()] == [jobs[1].id]
    assert leased.take_lost() == [], "reported once"


def test_a_bulk_cancel_is_seen_too(store: Store, jobs: list[ClaimedJob], leased: LeasedJobs, start: Any) -> None:
    keeper = start(
        LeaseKeeper(store, OWNER, 3600.0, leased_jobs=leased, step_deadline=StepDeadline(3600.0), on_hang=lambda _: None)
    )
    cancel_job(store, jobs[0].id, DEFAULT_TENANT)
    CancelListener(None, "test", leased, keeper).heard('{"kind": "bulk.changed", "subject": "farm"}')  # type: ignore[arg-type]
    wait_for(lambda: leased._lost)


def test_a_hung_step_is_not_renewed_and_ends_the_worker(
    store: Store, jobs: list[ClaimedJob], leased: LeasedJobs, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline_module, "MAX_STEP_S", 0.0)
    step_deadline, hung = StepDeadline(0.4), queue.Queue[str]()
    step_deadline.step()
    before = lease_of(store, jobs[0])
    start(LeaseKeeper(store, OWNER, 0.4, leased_jobs=leased, step_deadline=step_deadline, on_hang=hung.put))
    assert hung.get(timeout=5) == "step"
    assert lease_of(store, jobs[0]) == before


@pytest.mark.process
@pytest.mark.parametrize(
    ("phase", "words", "self_inflicted"), [("step", "a step did not end", True), ("loading", "a model's load", False)]
)
def test_the_parent_knows_that_its_child_hung_and_whose_doing_it_was(
    settings: Settings, phase: str, words: str, self_inflicted: bool
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", f"from worker.leases.lease_keeper import end_this_process as e; e({phase!r})"], cwd=PROJECT_ROOT
    )
    child_monitor = ChildMonitor(None, settings, ["demo"], "node")  # type: ignore[arg-type]
    child_monitor.child_ended("wrk_a", ended.returncode)
    ((_, reason, own),) = child_monitor._deaths
    assert reason.startswith("hung: ")
    assert words in reason
    assert own is self_inflicted


@pytest.mark.process
def test_a_process_that_takes_too_much_memory_is_ended_and_another_is_not() -> None:
    hoarder, other = (
        subprocess.Popen(
            [sys.executable, "-c", f"x = bytearray(b'x' * {size << 20}); print(1, flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for size in (200, 1)
    )
    for process in (hoarder, other):
        assert process.stdout is not None
        process.stdout.readline()
    limit = MemoryLimit(100 << 20, lambda: [hoarder.pid, other.pid])
    limit.look()
    assert hoarder.wait(10) == -signal.SIGKILL
    assert set(limit.ended) == {hoarder.pid}
    assert "more than worker_memory_limit_gib" in limit.ended[hoarder.pid]
    assert other.poll() is None
    other.communicate(b"\n", timeout=10)


def test_a_picture_that_is_stuck_on_its_way_to_the_store_is_not_renewed(
    store: Store, jobs: list[ClaimedJob], leased: LeasedJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.leases.lease_keeper.MAX_FINISH_S", 0.0)
    leased.note_finishing(jobs[0].id)
    before = [lease_of(store, job) for job in jobs]
    LeaseKeeper(store, OWNER, 60.0, leased_jobs=leased, step_deadline=StepDeadline(60.0)).renew_all()
    after = [lease_of(store, job) for job in jobs]
    assert after[0] == before[0]
    assert after[1] > before[1]


def test_steps_may_take_as_long_as_steps_take() -> None:
    step_deadline = StepDeadline(lease_s=0.01)
    assert step_deadline.is_met
    step_deadline.mean_step_s = 0.001
    step_deadline.step()
    time.sleep(0.1)
    assert not step_deadline.is_met
    step_deadline.loading()
    assert step_deadline.is_met, "a load has its own patience"
    step_deadline.mean_step_s = 10.0
    step_deadline.step()
    time.sleep(0.1)
    assert step_deadline.is_met


def test_each_phase_may_last_as_long_as_it_can_without_being_hung() -> None:
    def may_last(step_deadline: StepDeadline) -> float:
        return step_deadline._until - time.monotonic()

    def about(seconds: float) -> Any:
        return pytest.approx(seconds, abs=5)

    step_deadline = StepDeadline(lease_s=30.0)
    step_deadline.loading()
    assert may_last(step_deadline) == about(deadline_module.MAX_LOAD_S)
    step_deadline.finishing()
    assert may_last(step_deadline) == about(deadline_module.MAX_STEP_S)
    step_deadline.step()
    assert may_last(step_deadline) == about(deadline_module.MAX_STEP_S), "nothing is known of this model's steps yet"
    for mean_s, max_s in ((0.01, 60.0), (2.0, 100.0), (60.0, deadline_module.MAX_STEP_S)):
        step_deadline.mean_step_s = mean_s
        step_deadline.step()
        assert may_last(step_deadline) == about(max_s), mean_s
    step_deadline.idle()
    assert may_last(step_deadline) == float("inf")
    compiles = StepDeadline(lease_s=30.0, may_compile=True)
    compiles.mean_step_s = 0.01
    compiles.step()
    assert may_last(compiles) == about(deadline_module.MAX_STEP_S), "kernels may be made in it"


def test_the_length_of_steps_is_learnt() -> None:
    step_deadline = StepDeadline(lease_s=30.0)
    for took_s, mean_s in ((0.0, 0.0), (10.0, 1.0), (10.0, 1.9)):
        step_deadline.step()
        assert step_deadline._step_began is not None
        step_deadline._step_began -= took_s
        step_deadline.step_done()
        assert step_deadline.mean_step_s == pytest.approx(mean_s, abs=0.3)


def test_a_later_attempt_of_a_job_is_not_let_go_by_the_end_of_an_earlier_one(
    store: Store, jobs: list[ClaimedJob], leased: LeasedJobs
) -> None:
    from dataclasses import replace

    later = replace(jobs[0], attempt=2)
    leased.add([later])
    leased.remove(jobs[0])
    assert leased.get(later.id) is not None
    leased.remove(later)
    assert leased.get(later.id) is None
