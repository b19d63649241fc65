"""No picture with NaN in its making comes out, blank ones are retried isolated, and neighbours never notice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scheduler.queue.claim import ClaimedJob
from scheduler.queue.retry import FailureClass
from tests.worker.model_jobs import SmallModels, finish, pictures, psnr
from worker.engine.engine import StepEngine
from worker.engine.pixels import is_blank, to_uint8
from worker.engine.results import FailedJob, RenderedJob
from worker.families.base import Sample
from worker.families.tensors import cast_to
from worker.models.loading import LoadedPipeline

STEPS = 4


@pytest.fixture
def pipeline(models: SmallModels) -> LoadedPipeline:
    """A pipeline whose family the test may wrap."""
    return models.fresh("tiny-z-image")


@pytest.fixture
def victim(models: SmallModels) -> ClaimedJob:
    return models.job("tiny-z-image", prompt="the victim", width=32, height=32, steps=STEPS, seed=1)


@pytest.fixture
def jobs(models: SmallModels, victim: ClaimedJob) -> tuple[ClaimedJob, ClaimedJob]:
    """The victim and its neighbour."""
    return victim, models.job("tiny-z-image", prompt="the neighbour", width=32, height=32, steps=STEPS, seed=2)


def spoil_predictions(
    monkeypatch: pytest.MonkeyPatch, pipeline: LoadedPipeline, seed: int, step: int, times: int
) -> list[torch.dtype]:
    """Make the denoiser return one NaN for the image of `seed` at `step`, `times` times; return the dtypes of those passes."""
    family, dtypes = pipeline.family, []
    predict = family.predict

    def spoiled(samples: Sequence[Sample]) -> list[torch.Tensor]:
        predictions = predict(samples)
        for sample, prediction in zip(samples, predictions, strict=True):
            if sample.generator.initial_seed() == seed and sample.step == step and len(dtypes) < times:
                dtypes.append(family.denoiser.dtype)  # type: ignore[arg-type]
                with torch.inference_mode():
                    prediction.view(-1)[0] = float("nan")
        return predictions

    monkeypatch.setattr(family, "predict", spoiled)
    return dtypes


@pytest.mark.parametrize("step", range(STEPS))
def test_a_passing_nan_is_made_good(
    models: SmallModels, monkeypatch: pytest.MonkeyPatch, pipeline: LoadedPipeline, jobs: tuple[ClaimedJob, ClaimedJob], step: int
) -> None:
    victim, neighbour = jobs
    expected = {job.id: pictures(models.engine("tiny-z-image", 1), job)[0] for job in jobs}
    spoil_predictions(monkeypatch, pipeline, seed=1, step=step, times=1)
    engine = StepEngine(pipeline, max_images=4)
    engine.add(victim)
    engine.add(neighbour)
    ended = finish(engine)
    made, next_to = ended[victim.id], ended[neighbour.id]
    assert isinstance(made, RenderedJob)
    assert isinstance(next_to, RenderedJob)
    # the isolated retry is alone, so it has the very bits of a job alone
    assert np.array_equal(made.images[0].pixels, expected[victim.id])
    assert made.images[0].facts["remarks"] == ["made again alone in float32: latents were not finite"]
    assert made.images[0].warnings == []
    assert psnr(next_to.images[0].pixels, expected[neighbour.id]) >= 80
    assert next_to.images[0].facts["remarks"] == []


@pytest.mark.parametrize("step", range(STEPS))
def test_a_lasting_nan_fails_its_job_alone(
    models: SmallModels, monkeypatch: pytest.MonkeyPatch, pipeline: LoadedPipeline, jobs: tuple[ClaimedJob, ClaimedJob], step: int
) -> None:
    victim, neighbour = jobs
    expected = pictures(models.engine("tiny-z-image", 1), neighbour)[0]
    spoil_predictions(monkeypatch, pipeline, seed=1, step=step, times=99)
    engine = StepEngine(pipeline, max_images=4)
    engine.add(victim)
    engine.add(neighbour)
    ended = finish(engine)
    failed = ended[victim.id]
    assert isinstance(failed, FailedJob)
    assert failed.failure.code == "nan_output"
    assert failed.failure.kind is FailureClass.MODEL
    next_to = ended[neighbour.id]
    assert isinstance(next_to, RenderedJob)
    assert psnr(next_to.images[0].pixels, expected) >= 80


def test_the_isolated_retry_widens_a_bfloat16_denoiser_and_restores_it(
    models: SmallModels, monkeypatch: pytest.MonkeyPatch, pipeline: LoadedPipeline, victim: ClaimedJob
) -> None:
    pipeline.family.denoiser.to(torch.bfloat16)
    pipeline.family.dtype = torch.bfloat16
    before = {name: tensor.clone() for name, tensor in pipeline.family.denoiser.state_dict().items()}
    dtypes = spoil_predictions(monkeypatch, pipeline, seed=1, step=0, times=2)
    engine = StepEngine(pipeline, max_images=4)
    engine.add(victim)
    assert isinstance(finish(engine)[victim.id], FailedJob)
    assert dtypes == [torch.bfloat16, torch.float32]
    after = pipeline.family.denoiser.state_dict()
    assert all(torch.equal(tensor, after[name]) and tensor.dtype == after[name].dtype for name, tensor in before.items())


def test_a_decoder_that_overflows_is_run_again_in_float32(
    monkeypatch: pytest.MonkeyPatch, pipeline: LoadedPipeline, jobs: tuple[ClaimedJob, ClaimedJob]
) -> None:
    victim, neighbour = jobs
    family = pipeline.family
    family.vae.to(torch.bfloat16)
    decode = family.decode

    def overflowing(latents: torch.Tensor) -> torch.Tensor:
        decoded = decode(latents)
        if family.vae.dtype == torch.bfloat16:
            # one number is enough, and would be one white pixel
            decoded[0, 0, 0, 0] = float("inf")
        return decoded

    monkeypatch.setattr(family, "decode", overflowing)
    engine = StepEngine(pipeline, max_images=8)  # both are decoded together: a sixth, rounded up
    engine.add(victim)
    engine.add(neighbour)
    ended = finish(engine)
    made, next_to = ended[victim.id], ended[neighbour.id]
    assert isinstance(made, RenderedJob)
    assert isinstance(next_to, RenderedJob)
    assert made.images[0].facts["remarks"] == ["decoded again in float32: bfloat16 gave numbers that are not finite"]
    assert made.images[0].facts["decode"]["dtype"] == "float32"
    assert next_to.images[0].facts["decode"]["dtype"] == "bfloat16"
    assert {parameter.dtype for parameter in family.vae.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("value", "times", "warnings"), [(-1.0, 1, []), (-1.0, 2, ["blank"]), (0.5, 2, ["blank"])], ids=["once", "black", "grey"]
)
def test_a_blank_picture_is_retried_isolated(
    pipeline: LoadedPipeline, victim: ClaimedJob, value: float, times: int, warnings: list[str]
) -> None:
    family, calls, decode = pipeline.family, 0, pipeline.family.decode

    def blank(latents: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        decoded = decode(latents)
        return torch.full_like(decoded, value) if calls <= times else decoded

    family.decode = blank  # type: ignore[method-assign]
    engine = StepEngine(pipeline, max_images=4)
    engine.add(victim)
    made = finish(engine)[victim.id]
    assert isinstance(made, RenderedJob)
    assert calls == 2
    assert made.images[0].warnings == warnings
    assert is_blank(made.images[0].pixels) is bool(warnings)
    assert made.images[0].facts["remarks"] == ["made again alone in float32: the picture is one plain colour"]


def test_uint8_is_byte_for_byte_the_processors(models: SmallModels) -> None:
    processor = models.pipeline("tiny-z-image").family.pipe.image_processor
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        decoded = (torch.randn(3, 3, 40, 24, generator=torch.Generator().manual_seed(1)) * 1.5).to(dtype)
        expected = np.stack([np.asarray(image) for image in processor.postprocess(decoded.clone())])
        assert np.array_equal(to_uint8(decoded).numpy(), expected)


def blank_with(value: int, row: int = 0, level: int = 0) -> NDArray[np.uint8]:
    pixels = np.full((16, 16, 3), value, dtype=np.uint8)
    pixels[row, 5, 1] += level
    return pixels


@pytest.mark.parametrize(
    ("pixels", "blank"),
    [
        (blank_with(0), True),
        (blank_with(255), True),
        (blank_with(128, 3, 1), True),
        (blank_with(128, 3, 9), False),
        (blank_with(0, 0, 200), False),
        (np.full((8, 8, 3), (10, 200, 40), dtype=np.uint8), True),
    ],
)
def test_blankness(pixels: NDArray[np.uint8], blank: bool) -> None:
    assert is_blank(pixels) is blank


def test_casting_and_back_keeps_every_bit() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4, dtype=torch.bfloat16), torch.nn.Linear(4, 4))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.inference_mode(), cast_to(module, torch.float32):
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    after = module.state_dict()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
