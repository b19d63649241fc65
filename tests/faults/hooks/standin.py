"""A renderer that sleeps, in the place of the device, the models and the engine: a child with it starts in two seconds.

The faults hit claims, leases, files and commits, which are the farm's own; the pictures are noise from the seed.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from imagefarm.errors import RenderError
from scheduler.queue.retry import Failure, FailureClass
from worker.engine.results import RenderedImage, RenderedJob, StepReport

STEP_S = float(os.environ.get("FARM_FAULTS_STEP_S", "0.03"))


def find_device(_name: str) -> str:
    return "stand-in"


class MicroBatchLimits:
    """Nothing to learn of a memory that is not used."""

    changed = False

    def restore(self, _data: Any) -> None:
        pass


@dataclass
class LoadedPipeline:
    name: str
    entry: Any
    profile: str = "stand-in"
    denoise_limits: MicroBatchLimits = field(default_factory=MicroBatchLimits)
    decode_limits: MicroBatchLimits = field(default_factory=MicroBatchLimits)
    digest: str = "0" * 64
    load_s: float = 0.0
    bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


class Residency:
    def __init__(self, catalogue: Any, _settings: Any) -> None:
        self.catalogue = catalogue
        self.loaded: dict[str, LoadedPipeline] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.loaded)

    def get(self, name: str) -> LoadedPipeline:
        return self.loaded.setdefault(name, LoadedPipeline(name, self.catalogue.get(name)))

    @property
    def bytes(self) -> int:
        return 0

    def facts(self) -> dict[str, Any]:
        return {}

    def plan(self, _name: str) -> None:
        return None

    def step_down(self, _name: str) -> None:
        return None

    def unload(self, name: str) -> None:
        self.loaded.pop(name, None)


class AttemptFailed(RenderError):
    failure: Failure


def failure_of(error: BaseException) -> Failure:
    return Failure(FailureClass.UNKNOWN, "render_error", repr(error))


class StepEngine:
    def __init__(self, _pipeline: LoadedPipeline, *, max_images: int, **_options: Any) -> None:
        self.max_images = self.current_max_images = max_images
        self._running: dict[str, list[Any]] = {}

    @property
    def compat_key(self) -> str | None:
        return next((job.compat_key for job, _ in self._running.values()), None)

    @property
    def room(self) -> int:
        return max(0, self.max_images - sum(job.count for job, _ in self._running.values()))

    @property
    def jobs(self) -> list[str]:
        return list(self._running)

    def encode_ahead(self, _jobs: Any) -> None:
        pass

    def add(self, job: Any, _inputs: Any = None) -> None:
        self._running[job.id] = [job, 0]

    def drop(self, job_id: str) -> bool:
        return self._running.pop(job_id, None) is not None

    def step(self) -> StepReport:
        from sitecustomize import harm

        report = StepReport()
        for job, _ in self._running.values():
            harm(job)
        time.sleep(STEP_S)
        for job_id, entry in list(self._running.items()):
            job, entry[1] = entry[0], entry[1] + 1
            if entry[1] < job.recipe.steps:
                report.progress[job_id] = (entry[1], job.recipe.steps)
                continue
            del self._running[job_id]
            images = [
                RenderedImage(index, job.recipe.seed_of(index), _noise(job.recipe, index), {}, []) for index in range(job.count)
            ]
            report.rendered.append(RenderedJob(job, images, STEP_S * job.recipe.steps / self.max_images))
        return report


def _noise(recipe: Any, index: int) -> Any:
    random = np.random.default_rng(recipe.seed_of(index))
    return random.integers(0, 256, (recipe.height, recipe.width, 3), dtype=np.uint8)
