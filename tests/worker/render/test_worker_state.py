"""The render loop between slices: reported state, operator commands, idle memory and learned limits."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import OperationalError

from imagefarm.states import WorkerState
from imagefarm.store.models import Worker
from tests.farm import Farm
from tests.worker.render.stand_ins import Shelf, StandIn, requests, run, states
from worker.render.commands import CommandQueue
from worker.render.heartbeat import Heartbeat
from worker.render.loop import RenderLoop


def test_a_worker_says_what_it_is_doing(loop: RenderLoop) -> None:
    context = loop.context
    heartbeat = Heartbeat(context)
    assert heartbeat.state() == WorkerState.STARTING
    heartbeat.starting = False
    assert heartbeat.state() == WorkerState.READY
    with context.store.write() as session:
        session.execute(update(Worker).values(desired_state=WorkerState.QUARANTINED))
    heartbeat.beat()
    assert heartbeat.state() == WorkerState.QUARANTINED
    context.desired_state = WorkerState.DRAINING
    assert heartbeat.state() == WorkerState.DRAINING
    context.desired_state = WorkerState.READY
    context.drain.begin()
    assert heartbeat.state() == WorkerState.DRAINING


def test_the_operators_target_state_holds_while_the_database_is_down(loop: RenderLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    context, heartbeat = loop.context, Heartbeat(loop.context)
    heartbeat.starting = False
    with context.store.write() as session:
        session.execute(update(Worker).values(desired_state=WorkerState.QUARANTINED))
    heartbeat.beat()

    def away(*_: Any, **__: Any) -> Any:
        raise OperationalError("select", {}, Exception("connection refused"))

    monkeypatch.setattr("worker.render.heartbeat.heartbeat", away)
    heartbeat.beat()
    assert (heartbeat.state(), heartbeat.failures) == (WorkerState.QUARANTINED, 1)


def test_memory_of_images_is_returned_once_the_worker_is_idle(
    farm: Farm, loop: RenderLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.memory.malloc_trim.EVERY_S", 0.0)
    context, beats = loop.context, Heartbeat(loop.context)
    context.heap_trimmer.trim_if_due(busy=False)
    farm.submit_many(requests(3), notify=False)
    trimmed: list[bool] = []
    trim_if_due = context.heap_trimmer.trim_if_due

    def watched(*, busy: bool) -> bool:
        trimmed.append(trim_if_due(busy=busy))
        if trimmed == [True]:
            beats.now()
        else:
            beats._stopping = True
        return trimmed[-1]

    run(loop)
    assert not context.leased_jobs
    monkeypatch.setattr(context.heap_trimmer, "trim_if_due", watched)
    beats._run()
    assert trimmed == [True, False], "once, as nothing was made since"


def test_a_worker_that_the_farm_has_forgotten_makes_itself_known_again(loop: RenderLoop) -> None:
    context = loop.context
    heartbeat = Heartbeat(context)
    heartbeat.starting = False
    with context.store.write() as session:
        session.execute(delete(Worker))
    heartbeat.beat()
    with context.store.read() as session:
        found = session.scalars(select(Worker)).one()
    assert (found.id, found.state, found.serves) == (context.identity.id, WorkerState.READY, context.identity.serves)
    assert heartbeat.failures == 0


def test_learned_memory_limits_survive_the_worker(farm: Farm, loop: RenderLoop) -> None:
    def learn(engine: StandIn) -> None:
        engine.pipeline.denoise_limits.learn(4160, 3)
        engine.pipeline.denoise_limits.measured(4160, 2, 10_000)

    StandIn.on_step = learn
    farm.submit_many(requests(1), notify=False)
    loop.run_slice("demo")
    StandIn.on_step = None
    loop.context.residency = Shelf(farm)  # type: ignore[assignment]
    loop.engine = loop.pipeline = None
    farm.submit_many(requests(1), notify=False)
    loop.run_slice("demo")
    assert loop.pipeline is not None
    assert loop.pipeline.denoise_limits.cap(5000, 16) == 3
    assert loop.pipeline.denoise_limits.bytes_per_unit(4160) == 10_000 / 4160 / 2


def test_commands_run_when_nothing_renders(farm: Farm, loop: RenderLoop) -> None:
    shelf: Any = loop.context.residency
    seen: list[list[str]] = []

    def ask(_: StandIn) -> None:
        if len(StandIn.steps_taken) == 3:
            loop.context.commands.extend([("warm", "sd15"), ("unload", "demo")])
        seen.append(list(shelf.names))

    StandIn.on_step = ask
    farm.submit_many(requests(1), notify=False)
    loop.run_slice("demo")
    assert all(names == ["demo"] for names in seen), "a model left while its images were made"
    assert shelf.names == ["sd15"]
    assert not loop.context.commands
    StandIn.on_step = None

    done = threading.Event()
    keeper = CommandQueue(loop, on_done=done.set)
    keeper.start()
    with loop.turn:
        keeper.take([{"do": "warm", "model": "demo"}])
        assert not done.wait(0.2), "somebody else has the turn"
    assert done.wait(10), "between slices nobody else would do it"
    assert shelf.names == ["sd15", "demo"]
    farm.submit_many(requests(1), notify=False)
    run(loop)
    assert set(states(farm).values()) == {"succeeded"}
    keeper.stop()


def test_a_ticket_for_nothing_costs_nothing(loop: RenderLoop) -> None:
    began = time.monotonic()
    for _ in range(10):
        loop.run_slice("demo")
    assert time.monotonic() - began < 1.0
