"""The end of a render slice: draining, and the tickets that it leaves."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select

from imagefarm.store.models import Job
from scheduler.tickets import waiting
from tests.farm import Farm
from tests.worker.render.stand_ins import StandIn, requests, run, states
from worker.process.drain import MAX_DRAIN_S
from worker.render.loop import RenderLoop


def test_draining_finishes_short_jobs_and_releases_jobs_that_have_not_begun(farm: Farm, loop: RenderLoop) -> None:
    farm.submit_many(requests(40, steps=20), notify=False)

    def stop(_: StandIn) -> None:
        if len(StandIn.steps_taken) == 5:
            loop.context.drain.begin()

    StandIn.on_step = stop
    run(loop)
    found = list(states(farm).values())
    assert 1 <= found.count("succeeded") <= 8
    assert found.count("queued") == 40 - found.count("succeeded")
    with farm.store.read() as session:
        assert session.scalar(select(Job.crashes).where(Job.crashes > 0)) is None


def test_draining_releases_jobs_that_would_take_too_long(farm: Farm, loop: RenderLoop) -> None:
    (job,) = farm.submit_many(requests(1, steps=50), notify=False)

    def stop(_: StandIn) -> None:
        if len(StandIn.steps_taken) == 5:
            loop.context.step_deadline.mean_step_s = 2 * MAX_DRAIN_S
            loop.context.drain.begin()

    StandIn.on_step = stop
    run(loop)
    assert states(farm) == {job: "queued"}
    assert len(StandIn.steps_taken) <= 6
    assert farm.files() == set()


def test_draining_releases_at_once_jobs_that_wait_for_the_running_set(farm: Farm, loop: RenderLoop) -> None:
    loop.context.settings = farm.settings.model_copy(update={"max_running_set_images": 1})
    running, waits = farm.submit_many(requests(2), notify=False)

    def stop(engine: StandIn) -> None:
        if loop.waiting:
            loop.context.drain.begin()
        if not loop.context.drain.is_requested or states(farm)[waits] != "queued":
            engine.hold()

    StandIn.on_step = stop
    run(loop)
    assert states(farm) == {running: "succeeded", waits: "queued"}
    assert not any(waits in step for step in StandIn.steps_taken)


def test_an_operators_drain_ends_the_slice_without_a_ticket(farm: Farm, loop: RenderLoop) -> None:
    farm.submit_many(requests(30), notify=False)
    farm.redis.delete(f"{farm.settings.redis_prefix}:lane.demo")

    def drain(_: StandIn) -> None:
        loop.context.desired_state = "draining"

    StandIn.on_step = drain
    loop.context.issue_ticket = lambda lane: None
    run(loop)
    assert "running" not in states(farm).values()
    assert "queued" in states(farm).values()


def test_a_slice_that_is_over_issues_its_ticket_again(farm: Farm, loop: RenderLoop) -> None:
    # one at a time: the running set empties between two jobs, where a slice may end
    loop.context.settings = farm.settings.model_copy(update={"ticket_slice_s": 0.01, "max_running_set_images": 1})
    farm.submit_many(requests(60), notify=False)
    loop.run_slice("demo")
    loop.context.finishing.close()
    assert "running" not in states(farm).values()
    assert "queued" in states(farm).values()
    assert waiting(farm.redis, farm.settings.redis_prefix, "demo") >= 1


@pytest.mark.parametrize(("drains", "tickets"), [(False, 2), (True, 1)])
def test_a_slice_wakes_another_when_it_begins_and_leaves_a_ticket_when_it_ends(
    farm: Farm, loop: RenderLoop, drains: bool, tickets: int
) -> None:
    loop.context.settings = farm.settings.model_copy(update={"ticket_slice_s": 0.01, "max_running_set_images": 1})
    farm.submit_many(requests(30), notify=False)
    issued_at: list[int] = []
    loop.context.issue_ticket = lambda lane: issued_at.append(len(StandIn.steps_taken))

    def drain(_: StandIn) -> None:
        loop.context.desired_state = "draining" if drains else loop.context.desired_state

    StandIn.on_step = drain
    run(loop)
    assert "queued" in states(farm).values()
    assert len(issued_at) == tickets
    assert issued_at[0] == 0, "as soon as it knows that there is more than it took"
    assert issued_at[-1] == (0 if drains else len(StandIn.steps_taken))


def test_a_slice_that_had_work_sees_a_job_whose_ticket_was_spared(farm: Farm, loop: RenderLoop) -> None:
    farm.submit_many(requests(1), notify=False)
    later = threading.Timer(0.4, lambda: farm.submit_many(requests(1), notify=False))
    later.start()
    run(loop)
    later.join()
    assert list(states(farm).values()) == ["succeeded", "succeeded"]
