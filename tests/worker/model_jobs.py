"""Small models with their catalogue, claimed jobs without a database, and an engine driven until they are done."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagefarm.catalogue import Catalogue
from imagefarm.recipe import JobRequest
from scheduler.queue.claim import ClaimedJob
from worker.engine.engine import StepEngine
from worker.engine.results import FailedJob, RenderedJob
from worker.inputs.input_images import NOTHING, Inputs
from worker.models.loading import LoadedPipeline, load_pipeline

NUMBERS = itertools.count(1)


class SmallModels:
    """The catalogue of the tiny models and the demo; each is loaded once, on the CPU."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalogue = Catalogue.read(folder / "models.toml")
        self._loaded: dict[str, LoadedPipeline] = {}

    def pipeline(self, name: str) -> LoadedPipeline:
        if name not in self._loaded:
            self._loaded[name] = self.fresh(name)
        return self._loaded[name]

    def fresh(self, name: str) -> LoadedPipeline:
        """A pipeline of the caller's own, which it may change."""
        return load_pipeline(self.catalogue.get(name), self.catalogue, device="cpu")

    def engine(self, name: str, max_images: int = 8) -> StepEngine:
        return StepEngine(self.pipeline(name), max_images=max_images)

    def job(self, model: str, **request: Any) -> ClaimedJob:
        return claimed(self.catalogue, model=model, **request)


def claimed(catalogue: Catalogue, **request: Any) -> ClaimedJob:
    """A job as the claim hands it over."""
    asked = JobRequest(**{"prompt": "a red fox", "seed": 7, **request})
    recipe, _ = catalogue.resolve(asked)
    return ClaimedJob(
        id=f"job_{next(NUMBERS)}",
        attempt=1,
        owner="worker_1",
        model=recipe.model,
        compat_key=catalogue.get(recipe.model).compat_key(recipe),
        recipe=recipe,
        recipe_hash=recipe.recipe_hash,
        count=asked.count,
        priority_class=str(asked.priority),
        tenant_id="tenant_1",
        batch_id=None,
        custom_id=None,
        labels={},
        cost_s=1.0,
        crashes=0,
        expires_at=None,
    )


def finish(engine: StepEngine, max_steps: int = 500) -> dict[str, RenderedJob | FailedJob]:
    """Step until the running set is empty; return how each job ended, by id."""
    ended: dict[str, RenderedJob | FailedJob] = {}
    for _ in range(max_steps):
        report = engine.step()
        ended |= {item.job.id: item for item in (*report.rendered, *report.failed)}
        if not engine.jobs:
            return ended
    raise AssertionError(f"still running after {max_steps} steps: {engine.jobs}")


def pictures(engine: StepEngine, job: ClaimedJob, inputs: Inputs = NOTHING) -> list[NDArray[np.uint8]]:
    """The pixels of a job rendered alone."""
    engine.add(job, inputs)
    ended = finish(engine)[job.id]
    assert isinstance(ended, RenderedJob), ended
    return [image.pixels for image in ended.images]


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal to noise in dB; infinite for equal pictures."""
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
