"""Failures in the render loop: jobs, models, memory, the device and the engine."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from imagefarm.errors import RenderError
from imagefarm.store.models import Attempt, Model, Worker
from tests.farm import Farm
from tests.worker.render.stand_ins import STEPS, StandIn, requests, run, states
from worker.render import loop as loop_module
from worker.render.loop import RenderLoop
from worker.render.model_status import report_loaded


def test_a_job_that_cannot_be_rendered_fails_alone(farm: Farm, loop: RenderLoop) -> None:
    good, bad, broken = farm.submit_many(
        [*requests(1), *requests(1, prompt="bad prompt"), *requests(1, prompt="broken")], notify=False
    )
    run(loop)
    assert states(farm) == {good: "succeeded", bad: "failed", broken: "failed"}
    assert farm.job(bad).error_code == "input_invalid"
    assert farm.job(broken).error_code == "nan_output"


def test_a_model_that_cannot_be_loaded_is_tried_once_for_all_its_jobs(farm: Farm, loop: RenderLoop) -> None:
    shelf: Any = loop.context.residency
    shelf.missing.add("sd15")
    broken = farm.submit_many(requests(20, model="sd15"), notify=False)
    good = farm.submit_many(requests(3), notify=False)
    run(loop)
    assert {farm.job(job).error_code for job in broken} == {"model_invalid"}
    assert {farm.job(job).state for job in good} == {"succeeded"}
    assert shelf.loads == 2
    with farm.store.read() as session:
        assert session.get_one(Model, "sd15").state == "missing"
        assert session.get_one(Model, "demo").state == "ready"


def test_a_model_that_could_not_be_loaded_is_tried_again_after_a_while(
    farm: Farm, loop: RenderLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "BROKEN_FOR_S", 0.0)
    shelf: Any = loop.context.residency
    shelf.missing.add("sd15")
    (first,) = farm.submit_many(requests(1, model="sd15"), notify=False)
    loop.run_slice("sd15")
    shelf.missing.clear()
    (second,) = farm.submit_many(requests(1, model="sd15"), notify=False)
    run(loop)
    assert states(farm) == {first: "failed", second: "succeeded"}


def test_a_lost_device_ends_the_slice_and_takes_nothing_with_it(farm: Farm, loop: RenderLoop) -> None:
    loop.context.settings = farm.settings.model_copy(update={"max_running_set_images": 1})
    runs, waits, rest = farm.submit_many(requests(3), notify=False)

    def lose(engine: StandIn) -> None:
        if any(job.id == waits for job in loop.waiting):
            raise RenderError("device_error", "CUDA error: an illegal memory access")
        engine.hold()

    StandIn.on_step = lose
    run(loop)
    assert loop.device_lost, "its process must end"
    assert states(farm) == dict.fromkeys((runs, waits, rest), "queued")
    with farm.store.read() as session:
        ended = dict(session.execute(select(Attempt.job_id, Attempt.outcome)).all())
    assert ended == {runs: "retry", waits: "released"}
    assert [farm.job(job).crashes for job in (runs, waits, rest)] == [0, 0, 0]
    assert not any(waits in step for step in StandIn.steps_taken)


def test_a_model_that_does_not_fit_is_reported_for_the_worker_not_for_the_model(farm: Farm, loop: RenderLoop) -> None:
    def insufficient_memory() -> object:
        with farm.store.read() as session:
            assert session.get(Model, "sd15") is None or session.get_one(Model, "sd15").state == "ready"
            return session.get_one(Worker, loop.context.identity.id).facts["insufficient_memory"]

    shelf: Any = loop.context.residency
    shelf.too_large.add("sd15")
    (job_id,) = farm.submit_many(requests(1, model="sd15"), notify=False)
    run(loop)
    assert farm.job(job_id).error_code == "oom"
    assert insufficient_memory() == {"sd15": "model sd15 does not fit"}
    shelf.too_large.clear()
    report_loaded(loop.context, shelf.get("sd15"))
    assert insufficient_memory() == {}


def test_out_of_memory_alone_puts_the_model_one_tier_down_in_the_same_attempt(farm: Farm, loop: RenderLoop) -> None:
    shelf: Any = loop.context.residency
    huge, *neighbours = farm.submit_many([*requests(1, prompt="huge"), *requests(2)], notify=False)
    run(loop)
    assert set(states(farm).values()) == {"succeeded"}
    assert {farm.job(job).attempt for job in (huge, *neighbours)} == {1}
    assert (shelf.lower, shelf.loads) == (["demo"], 2)
    # the neighbours went on in the running set that it left, and it began again alone
    assert StandIn.steps_taken[0] == [huge, *neighbours]
    assert StandIn.steps_taken[1] == neighbours
    assert sum(huge in step for step in StandIn.steps_taken) == 1 + STEPS


def test_out_of_memory_at_the_lower_tier_too_fails_with_the_size_that_fits(farm: Farm, loop: RenderLoop) -> None:
    shelf: Any = loop.context.residency
    first, second = (farm.submit_many(requests(1, prompt="colossal"), notify=False)[0] for _ in range(2))
    good = farm.submit_many(requests(1), notify=False)[0]
    run(loop)
    assert states(farm) == {first: "failed", second: "failed", good: "succeeded"}
    for job in (first, second):
        assert (farm.job(job).error_code, farm.job(job).error_detail) == ("oom", "up to 64x64 was rendered here")
    assert shelf.lower == ["demo"], "there is no tier below"


def test_an_engine_that_raises_fails_its_jobs_and_the_worker_goes_on(farm: Farm, loop: RenderLoop) -> None:
    ids = farm.submit_many(requests(3), notify=False)

    def explode(_: StandIn) -> None:
        StandIn.on_step = None
        raise RuntimeError("a bug")

    StandIn.on_step = explode
    loop.run_slice("demo")

    def tried_again() -> bool:
        loop.run_slice("demo")
        return set(states(farm).values()) == {"succeeded"}

    farm.wait_until(tried_again, 15, "an unknown failure is tried again, after a pause")
    assert {farm.job(job).attempt for job in ids} == {2}
