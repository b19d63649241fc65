"""The render slice: jobs join the running set, wait and leave; on a real store, with a stand-in for the device."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import OperationalError

from imagefarm.errors import RenderError
from imagefarm.output_store import LocalOutputStore
from imagefarm.states import WorkerState
from imagefarm.store.models import Attempt, Job, Model, Worker
from scheduler.queue.cancel import cancel_job
from scheduler.queue.claim import ClaimedJob
from scheduler.queue.retry import Failure, FailureClass
from scheduler.queue.workers import register
from scheduler.recovery.sweep import sweep
from scheduler.tickets import waiting
from scheduler.wiring import SWEEP_STEPS
from tests.farm import Farm
from worker.engine import engine as engine_module
from worker.engine.results import FailedJob, RenderedImage, RenderedJob, StepReport
from worker.leases.lease_keeper import LeaseKeeper
from worker.leases.leased_jobs import LeasedJobs
from worker.memory.micro_batch_limits import MicroBatchLimits
from worker.output.finishing import Finishing
from worker.process.drain import MAX_DRAIN_S, Drain
from worker.process.identity import make_identity
from worker.process.step_deadline import StepDeadline
from worker.render import loop as loop_module
from worker.render.commands import CommandQueue
from worker.render.context import WorkerContext
from worker.render.heartbeat import Heartbeat
from worker.render.loop import RenderLoop
from worker.render.model_status import report_loaded
from worker.render.progress import ProgressPublisher

STEPS = 8
BLACK = np.zeros((8, 8, 3), np.uint8)


class StandIn:
    """Keeps the step engine's contract without a device: a step takes `step_s`, each job has its recipe's steps."""

    step_s = 0.005
    steps_taken: list[list[str]]
    """The jobs in the running set at each step."""
    on_step: Callable[[StandIn], None] | None = None

    def __init__(self, pipeline: Any, *, max_images: int, text_encoder_batch_size: int = 0, tiled: bool = False) -> None:
        self.pipeline = pipeline
        self.max_images = max_images
        self.running: dict[str, list[Any]] = {}

    @property
    def jobs(self) -> list[str]:
        return list(self.running)

    @property
    def compat_key(self) -> str | None:
        return next((job.compat_key for job, _ in self.running.values()), None)

    @property
    def current_max_images(self) -> int:
        return self.max_images

    @property
    def room(self) -> int:
        return max(0, self.max_images - sum(job.count for job, _ in self.running.values()))

    def add(self, job: ClaimedJob, inputs: Any = None) -> None:
        assert self.compat_key in (None, job.compat_key)
        if "bad prompt" in job.recipe.prompt:
            raise RenderError("input_invalid", "this prompt cannot be encoded")
        self.running[job.id] = [job, 0]

    def hold(self) -> None:
        """Keep running jobs two steps from their end until the test's event happens, for at most 3000 steps."""
        assert len(self.steps_taken) < 3000, "waited in vain"
        for place in self.running.values():
            place[1] = min(place[1], place[0].recipe.steps - 2)

    def encode_ahead(self, jobs: list[ClaimedJob]) -> None:
        assert {job.compat_key for job in jobs} == {jobs[0].compat_key}

    def drop(self, job_id: str) -> bool:
        return self.running.pop(job_id, None) is not None

    def step(self) -> StepReport:
        type(self).steps_taken.append(self.jobs)
        if type(self).on_step is not None:
            type(self).on_step(self)
        time.sleep(self.step_s)
        report = StepReport()
        for job_id, place in list(self.running.items()):
            place[1] += 1
            job = place[0]
            if "huge" in job.recipe.prompt and not self.pipeline.lower:
                report.failed.append(FailedJob(job, Failure(FailureClass.RESOURCE, "oom", "alone and still out")))
            elif "colossal" in job.recipe.prompt:
                report.failed.append(FailedJob(job, Failure(FailureClass.RESOURCE, "oom", "up to 64x64 was rendered here")))
            elif "broken" in job.recipe.prompt:
                report.failed.append(FailedJob(job, Failure(FailureClass.MODEL, "nan_output", "not finite, twice")))
            elif place[1] >= job.recipe.steps:
                images = [RenderedImage(n, job.recipe.seed_of(n), BLACK, {}, []) for n in range(job.count)]
                report.rendered.append(RenderedJob(job, images, 0.01))
            else:
                report.progress[job_id] = (place[1], job.recipe.steps)
                continue
            del self.running[job_id]
        return report


class Shelf:
    """Keeps residency's contract: every model is there, but `missing`, and fits, but `too_large`."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        self.names: list[str] = []
        self.missing: set[str] = set()
        self.too_large: set[str] = set()
        self.loads = 0
        self.lower: list[str] = []
        """Models that were put one tier down; there is only one."""

    def facts(self) -> dict[str, Any]:
        return {}

    def unload(self, name: str) -> bool:
        was = name in self.names
        self.names = [other for other in self.names if other != name]
        return was

    def step_down(self, name: str) -> str | None:
        if name in self.lower:
            return None
        self.lower.append(name)
        self.names.remove(name)
        return "int8"

    def get(self, name: str) -> Any:
        self.loads += 1
        if name in self.missing:
            raise RenderError("model_invalid", f"model {name}: there is nothing")
        if name in self.too_large:
            raise RenderError("oom", f"model {name} does not fit")
        if name not in self.names:
            self.names.append(name)
        entry = self.farm.catalogue.get(name)
        return SimpleNamespace(
            name=name,
            entry=entry,
            digest="ab" * 32,
            facts={},
            load_s=0.1,
            bytes=1,
            lower=name in self.lower,
            denoise_limits=MicroBatchLimits(),
            decode_limits=MicroBatchLimits(),
            profile="cpu|resident|float32",
        )


@pytest.fixture
def farm(starts_process: None, tmp_path: Path) -> Iterator[Farm]:
    with Farm(tmp_path, worker_models=["demo", "sd15"], max_running_set_images=8, ticket_slice_s=5, quantum_s=0.5) as farm:
        yield farm


@pytest.fixture
def loop(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> Iterator[RenderLoop]:
    monkeypatch.setattr(engine_module, "StepEngine", StandIn)
    StandIn.steps_taken, StandIn.on_step, StandIn.step_s = [], None, 0.005
    settings, store = farm.settings, farm.store
    identity = make_identity(settings, farm.catalogue, device="none", node="w@test")
    register(store, identity)
    leased_jobs, outputs = LeasedJobs(), LocalOutputStore(settings.outputs)
    context = WorkerContext(
        settings=settings,
        catalogue=farm.catalogue,
        store=store,
        redis=farm.redis,
        outputs=outputs,
        identity=identity,
        residency=Shelf(farm),  # type: ignore[arg-type]
        leased_jobs=leased_jobs,
        step_deadline=StepDeadline(settings.lease_s),
        progress=ProgressPublisher(farm.redis, settings.redis_prefix),
        finishing=Finishing(store, outputs, settings, identity, leased_jobs),
        drain=Drain(),
        issue_ticket=farm.issue,
    )
    context.progress.start()
    loop = RenderLoop(context)
    yield loop
    loop.close("the test is over")
    context.finishing.close()
    context.progress.stop()


def run(loop: RenderLoop) -> None:
    loop.run_slice("demo")
    loop.context.finishing.close()


def states(farm: Farm) -> dict[str, str]:
    with farm.store.read() as session:
        return dict(session.execute(select(Job.id, Job.state)).all())


def requests(number: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"a mug {n}", "priority": "bulk", "seed": n} | fields for n in range(number)]


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


def test_what_the_operator_wanted_holds_while_the_database_is_away(loop: RenderLoop, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_what_pictures_took_is_given_back_once_the_worker_is_idle(
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


def test_a_model_that_does_not_fit_is_said_of_the_worker_not_of_the_model(farm: Farm, loop: RenderLoop) -> None:
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


def test_out_of_memory_at_the_lower_tier_too_fails_with_what_would_fit(farm: Farm, loop: RenderLoop) -> None:
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


def test_draining_finishes_what_is_short_and_gives_back_what_has_not_begun(farm: Farm, loop: RenderLoop) -> None:
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


def test_draining_gives_back_what_would_take_too_long(farm: Farm, loop: RenderLoop) -> None:
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


def test_draining_gives_back_at_once_what_waits_for_the_running_set(farm: Farm, loop: RenderLoop) -> None:
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


def test_a_slice_that_is_over_issues_its_ticket_anew(farm: Farm, loop: RenderLoop) -> None:
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


def test_what_was_learnt_of_memory_survives_the_worker(farm: Farm, loop: RenderLoop) -> None:
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
