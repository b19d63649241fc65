"""The device `fake`: it sleeps for each step and draws noise, so a worker runs without torch, models or a GPU.

Set `device = "fake"` to try claims, leases, recovery, output and the API on any machine: the worker starts in two seconds, and
everything except the models and the step engine is real. Images are noise that depends on the seed alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagefarm.catalogue import Catalogue
from imagefarm.model_entry import ModelEntry
from imagefarm.recipe import Recipe
from imagefarm.settings import Settings
from scheduler.queue.claim import ClaimedJob
from worker.engine.results import RenderedImage, RenderedJob, StepReport
from worker.memory.micro_batch_limits import MicroBatchLimits

FAKE = "fake"


@dataclass
class FakePipeline:
    """Stands for a loaded model; it holds no memory."""

    name: str
    entry: ModelEntry
    step_s: float
    """Seconds that one step takes, whatever the number of images."""
    profile: str = FAKE
    digest: str = "0" * 64
    bytes: int = 0
    load_s: float = 0.0
    denoise_limits: MicroBatchLimits = field(default_factory=MicroBatchLimits)
    decode_limits: MicroBatchLimits = field(default_factory=MicroBatchLimits)
    facts: dict[str, Any] = field(default_factory=dict)


class FakeResidency:
    """In place of `worker.models.residency.Residency`: every model of the catalogue loads at once and fits."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self.catalogue = catalogue
        self._step_s = settings.fake_step_s
        self._loaded: dict[str, FakePipeline] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._loaded)

    @property
    def bytes(self) -> int:
        return 0

    def facts(self) -> dict[str, Any]:
        return {}

    def get(self, name: str) -> FakePipeline:
        if name not in self._loaded:
            self._loaded[name] = FakePipeline(name, self.catalogue.get(name), self._step_s)
        return self._loaded[name]

    def plan(self, _entry: ModelEntry) -> None:
        """There is no memory to plan."""

    def step_down(self, _name: str) -> None:
        """There is no lower tier."""

    def unload(self, name: str) -> bool:
        return self._loaded.pop(name, None) is not None


class FakeEngine:
    """In place of `worker.engine.engine.StepEngine`: a job leaves after as many steps as its recipe has."""

    def __init__(self, pipeline: FakePipeline, *, max_images: int, **_options: Any) -> None:
        self.step_s = pipeline.step_s
        self.max_images = self.current_max_images = max_images
        self.running: dict[str, ClaimedJob] = {}
        """Jobs of the running set by id, oldest first."""
        self._steps_done: dict[str, int] = {}

    @property
    def compat_key(self) -> str | None:
        return next((job.compat_key for job in self.running.values()), None)

    @property
    def room(self) -> int:
        return max(0, self.max_images - sum(job.count for job in self.running.values()))

    @property
    def jobs(self) -> list[str]:
        return list(self.running)

    def encode_ahead(self, _jobs: list[ClaimedJob]) -> None:
        """There are no prompts to encode."""

    def add(self, job: ClaimedJob, _inputs: Any = None) -> None:
        self.running[job.id] = job
        self._steps_done[job.id] = 0

    def drop(self, job_id: str) -> bool:
        self._steps_done.pop(job_id, None)
        return self.running.pop(job_id, None) is not None

    def step(self) -> StepReport:
        time.sleep(self.step_s)
        report = StepReport()
        for job_id, job in list(self.running.items()):
            self._steps_done[job_id] += 1
            if self._steps_done[job_id] < job.recipe.steps:
                report.progress[job_id] = (self._steps_done[job_id], job.recipe.steps)
                continue
            self.drop(job_id)
            report.rendered.append(self._rendered(job))
        return report

    def _rendered(self, job: ClaimedJob) -> RenderedJob:
        images = [
            RenderedImage(index, job.recipe.seed_of(index), _noise(job.recipe, index), {"device": FAKE}, [])
            for index in range(job.count)
        ]
        return RenderedJob(job, images, gpu_s=self.step_s * job.recipe.steps / self.max_images)


def _noise(recipe: Recipe, index: int) -> NDArray[np.uint8]:
    """(height, width, 3) RGB."""
    random = np.random.default_rng(recipe.seed_of(index))
    return random.integers(0, 256, (recipe.height, recipe.width, 3), dtype=np.uint8)
