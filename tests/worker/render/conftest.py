"""A farm with a real store, and a render loop on stand-ins for the device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefarm.output_store import LocalOutputStore
from scheduler.queue.workers import register
from tests.farm import Farm
from tests.worker.render.stand_ins import Shelf, StandIn
from worker.engine import engine as engine_module
from worker.leases.leased_jobs import LeasedJobs
from worker.output.finishing import Finishing
from worker.process.drain import Drain
from worker.process.identity import make_identity
from worker.process.step_deadline import StepDeadline
from worker.render.context import WorkerContext
from worker.render.loop import RenderLoop
from worker.render.progress import ProgressPublisher


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
