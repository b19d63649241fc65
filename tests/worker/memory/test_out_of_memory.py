"""Out of memory halves a pass and loses nobody; one image that does not fit alone says what would."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from scheduler.queue.retry import FailureClass
from tests.worker.model_jobs import SmallModels, finish, pictures, psnr
from worker.engine.engine import StepEngine
from worker.engine.results import FailedJob, RenderedJob
from worker.failures import failure_of
from worker.families.base import Sample
from worker.models.loading import LoadedPipeline


@pytest.fixture
def pipeline(models: SmallModels) -> LoadedPipeline:
    """A pipeline whose family the test may wrap."""
    return models.fresh("tiny-z-image")


def hold(pipeline: LoadedPipeline, most: int) -> list[int]:
    """Limit a forward pass to `most` images of 64x64 and to no larger image; return the sizes of the tried passes."""
    predict, tried = pipeline.family.predict, []

    def limited(samples: Sequence[Sample]) -> list[torch.Tensor]:
        tried.append(len(samples))
        if len(samples) > most or any(sample.width > 64 for sample in samples):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return predict(samples)

    pipeline.family.predict = limited  # type: ignore[method-assign]
    return tried


@pytest.mark.parametrize("running", range(1, 9))
@pytest.mark.parametrize("most", [1, 3])
def test_every_image_is_made_whatever_fits(models: SmallModels, pipeline: LoadedPipeline, running: int, most: int) -> None:
    jobs = [
        models.job("tiny-z-image", prompt=f"picture {seed}", width=32, height=32, steps=2, seed=seed) for seed in range(running)
    ]
    expected = [pictures(models.engine("tiny-z-image", 1), job)[0] for job in jobs]
    tried = hold(pipeline, most)
    engine = StepEngine(pipeline, max_images=8)
    for job in jobs:
        engine.add(job)
    ended = finish(engine, max_steps=2 + 3)  # a retry is inside its step; two pictures are decoded between two
    for job, picture in zip(jobs, expected, strict=True):
        made = ended[job.id]
        assert isinstance(made, RenderedJob)
        assert psnr(made.images[0].pixels, picture) >= 80
    too_large = [size for size in tried if size > most]
    assert len(too_large) <= 3  # 8 -> 4 -> 2: learnt in the first step, remembered in the second


def test_alone_and_still_out_fails_with_what_would_fit(models: SmallModels, pipeline: LoadedPipeline) -> None:
    hold(pipeline, most=8)
    engine = StepEngine(pipeline, max_images=8)
    pictures(engine, models.job("tiny-z-image", steps=1))
    large = models.job("tiny-z-image", width=80, height=64, steps=2)
    small = models.job("tiny-z-image", steps=2)
    engine.add(large)
    engine.add(small)
    ended = finish(engine)
    failed = ended[large.id]
    assert isinstance(failed, FailedJob)
    assert (failed.failure.kind, failed.failure.code) == (FailureClass.RESOURCE, "oom")
    assert "80x64 alone ran out of memory" in failed.failure.detail
    assert "up to 64x64 was rendered here" in failed.failure.detail
    assert isinstance(ended[small.id], RenderedJob)


def test_a_decoder_out_of_memory_halves_then_tiles(models: SmallModels, pipeline: LoadedPipeline) -> None:
    family, decode, tried = pipeline.family, pipeline.family.decode, []

    def limited(latents: torch.Tensor) -> torch.Tensor:
        tried.append(len(latents))
        if len(latents) > 1 or (latents.shape[-1] > 8 and not family.vae.use_tiling):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(latents)

    family.decode = limited  # type: ignore[method-assign]
    engine = StepEngine(pipeline, max_images=8)
    two, large = models.job("tiny-z-image", count=2, steps=1), models.job("tiny-z-image", width=80, steps=1)
    engine.add(two)
    engine.add(large)
    ended = finish(engine)
    pair, tiled = ended[two.id], ended[large.id]
    assert isinstance(pair, RenderedJob)
    assert isinstance(tiled, RenderedJob)
    assert [image.warnings for image in pair.images] == [[], []]
    assert tiled.images[0].warnings == ["tiled"]
    assert tiled.images[0].facts["decode"]["tiled"] is True
    assert not family.vae.use_tiling
    pictures(engine, models.job("tiny-z-image", count=2, steps=1))
    assert tried.count(2) == 1  # learnt
    whole = len(tried)
    pictures(engine, models.job("tiny-z-image", width=80, steps=1))
    assert len(tried) == whole + 1, "a picture that did not fit whole is not tried whole again"


def test_an_error_in_a_shared_pass_fails_only_the_job_to_blame(models: SmallModels, pipeline: LoadedPipeline) -> None:
    predict = pipeline.family.predict

    def picky(samples: Sequence[Sample]) -> list[torch.Tensor]:
        if any(sample.generator.initial_seed() == 13 for sample in samples):
            raise RuntimeError("shape mismatch")
        return predict(samples)

    pipeline.family.predict = picky  # type: ignore[method-assign]
    jobs = [models.job("tiny-z-image", steps=3, seed=seed) for seed in (11, 13, 15)]
    expected = [pictures(models.engine("tiny-z-image", 1), jobs[place])[0] for place in (0, 2)]
    engine = StepEngine(pipeline, max_images=8)
    for job in jobs:
        engine.add(job)
    ended = finish(engine)
    failed = ended[jobs[1].id]
    assert isinstance(failed, FailedJob)
    assert failed.failure.kind is FailureClass.UNKNOWN
    assert failed.failure.detail == "RuntimeError: shape mismatch"
    for job, picture in zip((jobs[0], jobs[2]), expected, strict=True):
        made = ended[job.id]
        assert isinstance(made, RenderedJob)
        assert psnr(made.images[0].pixels, picture) >= 80


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "oom", FailureClass.RESOURCE),
        (MemoryError(), "oom", FailureClass.RESOURCE),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), "oom", FailureClass.RESOURCE),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "oom", FailureClass.RESOURCE),
        (torch.AcceleratorError("CUDA error: an illegal memory access"), "device_error", FailureClass.INFRASTRUCTURE),
        (KeyError("x"), "render_error", FailureClass.UNKNOWN),
    ],
)
def test_errors_are_told_apart(error: Exception, code: str, kind: FailureClass) -> None:
    failure = failure_of(error)
    assert (failure.code, failure.kind) == (code, kind)
    assert failure.detail
