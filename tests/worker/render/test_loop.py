"""The render slice: jobs join the running set, wait and leave; on a real store, with a stand-in for the device."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from sqlalchemy import select, update

from imagefarm.states import WorkerState
from imagefarm.store.models import Attempt, Job
from scheduler.queue.cancel import cancel_job
from scheduler.recovery.sweep import sweep
from scheduler.wiring import SWEEP_STEPS
from tests.farm import Farm
from tests.worker.render.stand_ins import StandIn, requests, run, states
from worker.leases.lease_keeper import LeaseKeeper
from worker.render.heartbeat import Heartbeat
from worker.render.loop import RenderLoop


def test_jobs_share_steps_and_newcomers_join_at_step_boundaries(farm: Farm, loop: RenderLoop) -> None:
    first = farm.submit_many(requests(2), notify=False)
    late: list[str] = []

    def arrive(_: StandIn) -> None:
        if len(StandIn.steps_taken) == 3:
            late.extend(farm.submit_many(requests(2), notify=False))

    StandIn.on_step = arrive
    StandIn.step_s = 0.03
    run(loop)
    assert set(states(farm).values()) == {"succeeded"}
    assert set(StandIn.steps_taken[2]) == set(first)
    together = [step for step in StandIn.steps_taken if set(first) & set(step) and set(late) & set(step)]
    assert together, "the newcomers waited until the running set was empty"
    assert len(farm.images()) == 4
    assert len(loop.context.leased_jobs) == 0


def test_an_interactive_job_joins_a_full_set_of_bulk_within_two_steps(farm: Farm, loop: RenderLoop) -> None:
    farm.submit_many(requests(30, steps=50), notify=False)
    seen: dict[str, int] = {}
    claimed_at: list[int] = []

    def arrive(engine: StandIn) -> None:
        step = len(StandIn.steps_taken)
        if not claimed_at and any(loop.context.leased_jobs.get(job_id) for job_id in seen):
            claimed_at.append(step)
        if step == 40:
            assert engine.room == 1, "all but the reserve is full"
            (seen_id,) = farm.submit_many([{"prompt": "now", "priority": "interactive"}], notify=False)
            seen[seen_id] = step
        if step > 60:
            loop.context.drain.begin()
            StandIn.step_s = 0.001

    StandIn.on_step, StandIn.step_s = arrive, 0.03
    loop.run_slice("demo")
    ((job_id, asked_at),) = seen.items()
    joined_at = next(number for number, step in enumerate(StandIn.steps_taken) if job_id in step)
    # claimed during a step, seen by this test at the end of it, and in the next one or the one after
    assert joined_at - claimed_at[0] <= 2
    # at most one pause between two questions, the claim, and a boundary
    assert joined_at - asked_at <= 5
    assert states(farm)[job_id] == "succeeded"


def test_a_cancelled_job_leaves_at_the_next_step_and_its_neighbours_stay(farm: Farm, loop: RenderLoop) -> None:
    doomed, kept = farm.submit_many(requests(2, steps=40), notify=False)
    context = loop.context
    keeper = LeaseKeeper(
        farm.store, context.identity.id, 30, leased_jobs=context.leased_jobs, step_deadline=context.step_deadline
    )

    def cancel(_: StandIn) -> None:
        if len(StandIn.steps_taken) == 10:
            cancel_job(farm.store, doomed, "tenant_default")
            keeper.renew_all()

    StandIn.on_step = cancel
    run(loop)
    assert states(farm) == {doomed: "cancelled", kept: "succeeded"}
    assert sum(doomed in step for step in StandIn.steps_taken) == 10
    assert {image.job_id for image in farm.images()} == {kept}
    assert farm.files() == {image.storage_key for image in farm.images()}


def test_a_job_that_is_cancelled_between_its_claim_and_its_first_step_never_begins(farm: Farm, loop: RenderLoop) -> None:
    loop.context.settings = farm.settings.model_copy(update={"max_running_set_images": 1})
    kept, doomed, last = farm.submit_many(requests(3, steps=20), notify=False)
    context = loop.context
    keeper = LeaseKeeper(
        farm.store, context.identity.id, 30, leased_jobs=context.leased_jobs, step_deadline=context.step_deadline
    )
    heartbeat, waited = Heartbeat(context), []
    heartbeat.starting = False

    def cancel(engine: StandIn) -> None:
        assert heartbeat.state() == WorkerState.BUSY
        if not waited and any(job.id == doomed for job in loop.waiting):
            waited.append(True)
            cancel_job(farm.store, doomed, "tenant_default")
            keeper.renew_all()
        elif not waited:
            engine.hold()

    StandIn.on_step = cancel
    run(loop)
    assert waited, "it was claimed while another ran"
    assert states(farm) == {kept: "succeeded", doomed: "cancelled", last: "succeeded"}
    assert not any(doomed in step for step in StandIn.steps_taken)
    assert len(context.leased_jobs) == 0


def test_a_job_whose_time_is_up_before_its_first_step_never_begins(
    farm: Farm, loop: RenderLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here its model takes too long to load; one that has begun may take as long as it takes."""
    (late,) = farm.submit_many(requests(1, expires_in=3600), notify=False)
    (begun,) = farm.submit_many(requests(1, expires_in=3600), notify=False)
    leased = loop.context.leased_jobs
    load = loop._load

    def long_load(name: str) -> Any:
        assert leased.all()
        assert all(item.begin_by is not None and 3500 < item.begin_by - time.monotonic() <= 3600 for item in leased.all())
        leased.note_deadline(late, -1)
        with farm.store.write() as session:
            session.execute(update(Job).where(Job.id == late).values(expires_at=0.0))
        return load(name)

    def overtake(_: StandIn) -> None:
        leased_job = leased.get(begun)
        assert leased_job is not None
        if len(StandIn.steps_taken) == 1:
            assert leased_job.begin_by is None, "also if it begins again, as after running out of memory"
        leased.note_deadline(begun, -1)

    monkeypatch.setattr(loop, "_load", long_load)
    StandIn.on_step = overtake
    run(loop)
    assert states(farm) == {late: "queued", begun: "succeeded"}
    assert not any(late in step for step in StandIn.steps_taken)
    assert sweep(farm.store, farm.settings, SWEEP_STEPS).expired == 1
    with farm.store.read() as session:
        job = session.get_one(Job, late)
        attempt = session.scalars(select(Attempt).where(Attempt.job_id == late)).one()
    assert (job.state, job.error_code) == ("failed", "expired")
    assert job.error_detail == "its time was up before a worker could start it"
    assert (attempt.outcome, attempt.reason) == ("released", "its time was up before it could begin")
    assert len(leased) == 0


def test_no_more_jobs_of_a_model_run_than_its_cap(farm: Farm, loop: RenderLoop) -> None:
    loop.context.settings = farm.settings.model_copy(update={"max_running_per_model": {"demo": 2}})
    farm.submit_many(requests(5), notify=False)
    run(loop)
    assert set(states(farm).values()) == {"succeeded"}
    assert max(len(step) for step in StandIn.steps_taken) == 2


def test_another_model_waits_for_a_quantum_and_not_for_the_end_of_the_lane(farm: Farm, loop: RenderLoop) -> None:
    farm.submit_many(requests(120, model="demo"), notify=False)
    other = farm.submit_many(requests(1, model="sd15", priority="interactive", prompt="other", steps=2), notify=False)[0]
    run(loop)
    position = next(number for number, step in enumerate(StandIn.steps_taken) if other in step)
    assert StandIn.steps_taken[position] == [other], "two models never share a step"
    assert position < 0.9 * len(StandIn.steps_taken), "it waited for the end of the lane"
    assert set(states(farm).values()) == {"succeeded"}


def test_a_job_that_crashed_a_worker_runs_alone(farm: Farm, loop: RenderLoop) -> None:
    suspect = farm.submit_many(requests(1), notify=False)[0]
    with farm.store.write() as session:
        session.execute(update(Job).where(Job.id == suspect).values(crashes=1))
    others = farm.submit_many(requests(5), notify=False)
    run(loop)
    for step in StandIn.steps_taken:
        assert step == [suspect] or suspect not in step
    assert set(states(farm).values()) == {"succeeded"}
    assert any(len(set(step) & set(others)) > 1 for step in StandIn.steps_taken)


def test_a_job_that_crashed_a_worker_begins_when_all_others_are_stored(
    farm: Farm, loop: RenderLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = loop.context
    others = farm.submit_many(requests(2), notify=False)
    (suspect,) = farm.submit_many(requests(1), notify=False)
    with farm.store.write() as session:
        session.execute(update(Job).where(Job.id == suspect).values(crashes=1))
    let, write, at_its_begin = threading.Event(), context.outputs.write, dict[str, str]()

    def write_when_let(key: str, data: bytes) -> None:
        assert let.wait(60)
        write(key, data)

    def watch(engine: StandIn) -> None:
        if suspect in engine.jobs:
            at_its_begin.update(at_its_begin or states(farm))
        elif not loop.waiting:
            engine.hold()

    def let_when_all_but_it_are_rendered() -> None:
        def rendered() -> bool:
            leased = [context.leased_jobs.get(job) for job in others]
            return all(each is not None and each.finishing_at is not None for each in leased)

        farm.wait_until(rendered, 60)
        time.sleep(0.1)  # in which it would begin
        let.set()

    monkeypatch.setattr(context.outputs, "write", write_when_let)
    StandIn.on_step = watch
    letting = threading.Thread(target=let_when_all_but_it_are_rendered)
    letting.start()
    run(loop)
    letting.join()
    assert set(states(farm).values()) == {"succeeded"}
    assert [at_its_begin[job] for job in others] == ["succeeded"] * 2
