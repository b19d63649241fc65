"""Stand-ins for the engine and the models, so that a render loop runs without a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from sqlalchemy import select

from imagefarm.errors import RenderError
from imagefarm.store.models import Job
from scheduler.queue.claim import ClaimedJob
from scheduler.queue.retry import Failure, FailureClass
from tests.farm import Farm
from worker.engine.results import FailedJob, RenderedImage, RenderedJob, StepReport
from worker.memory.micro_batch_limits import MicroBatchLimits
from worker.render.loop import RenderLoop

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


def run(loop: RenderLoop) -> None:
    loop.run_slice("demo")
    loop.context.finishing.close()


def states(farm: Farm) -> dict[str, str]:
    with farm.store.read() as session:
        return dict(session.execute(select(Job.id, Job.state)).all())


def requests(number: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"a mug {n}", "priority": "bulk", "seed": n} | fields for n in range(number)]
