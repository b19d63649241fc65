"""Inpainting: bit-equal to the pipelines for a job alone; kept areas come back unchanged, masked areas are generated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLInpaintPipeline,
    ZImageInpaintPipeline,
)
from PIL import Image

from imagefarm.errors import RenderError
from tests.worker.model_jobs import SmallModels, finish, pictures, psnr
from worker.engine.engine import StepEngine
from worker.engine.results import RenderedJob
from worker.families.samplers import SAMPLERS
from worker.inputs.input_images import Inputs

PHOTO = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
MASK = np.zeros((64, 64), np.uint8)
MASK[10:45, 20:64] = 255
INPUTS = Inputs(PHOTO, MASK)
ASKED: dict[str, Any] = {"init_image": "asset_" + "0" * 26, "mask": "asset_" + "1" * 26}
CLASSES = {
    "tiny-z-image": ZImageInpaintPipeline,
    "tiny-sd15": StableDiffusionInpaintPipeline,
    "tiny-sdxl": StableDiffusionXLInpaintPipeline,
}


def expected(models: SmallModels, model: str, recipe: Any) -> Any:
    """The picture that diffusers' own pipeline paints, over the same weights."""
    pipe = models.pipeline(model).family.pipe
    scheduler_class = FlowMatchEulerDiscreteScheduler if model == "tiny-z-image" else SAMPLERS[recipe.sampler]
    components = {**pipe.components, "scheduler": scheduler_class.from_config(pipe.scheduler.config)}
    options = {"requires_safety_checker": False} if model == "tiny-sd15" else {}
    inpaint = CLASSES[model](**components, **options)
    inpaint.set_progress_bar_config(disable=True)
    return np.asarray(
        inpaint(
            prompt=recipe.prompt,
            negative_prompt=recipe.negative_prompt or None,
            image=Image.fromarray(PHOTO),
            mask_image=Image.fromarray(MASK),
            strength=recipe.strength,
            width=64,
            height=64,
            num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance,
            generator=torch.Generator("cpu").manual_seed(recipe.seed),
        ).images[0]
    )


@pytest.mark.parametrize("strength", [None, 0.5])
@pytest.mark.parametrize("guidance", [0.0, 4.0])
@pytest.mark.parametrize("model", list(CLASSES))
def test_bit_equal_to_the_pipeline(models: SmallModels, model: str, guidance: float, strength: float | None) -> None:
    job = models.job(model, steps=5, guidance=guidance, negative_prompt="blurry", strength=strength, **ASKED)
    (made,) = pictures(models.engine(model), job, INPUTS)
    assert np.array_equal(made, expected(models, model, job.recipe))


@pytest.mark.parametrize("sampler", ["euler-ancestral", "dpm++-2m", "ddim", "lcm"])
@pytest.mark.parametrize("model", ["tiny-sd15", "tiny-sdxl"])
def test_bit_equal_with_every_sampler(models: SmallModels, model: str, sampler: str) -> None:
    if model == "tiny-sdxl" and sampler == "lcm":
        sampler = "euler"
    # some draw noise at every step: the generator must be where the pipeline's is
    job = models.job(model, sampler=sampler, **ASKED)
    (made,) = pictures(models.engine(model), job, INPUTS)
    assert np.array_equal(made, expected(models, model, job.recipe))


def test_inpainting_shares_passes_with_others(models: SmallModels) -> None:
    alone = models.job("tiny-z-image", seed=3, **ASKED)
    (by_itself,) = pictures(models.engine("tiny-z-image"), alone, INPUTS)
    engine = models.engine("tiny-z-image")
    engine.add(alone, INPUTS)
    engine.add(models.job("tiny-z-image", seed=4))
    ended = finish(engine)[alone.id]
    assert isinstance(ended, RenderedJob)
    assert ended.images[0].facts["step_shapes"][0]["images"] == 2
    assert psnr(ended.images[0].pixels, by_itself) > 60


def test_the_demo_keeps_what_it_is_told_to_keep(models: SmallModels) -> None:
    (mug,) = pictures(models.engine("demo"), models.job("demo", prompt="a red mug on a white background", seed=42))
    background = (mug[..., 0].astype(int) - mug[..., 1] < 60).astype(np.uint8) * 255
    job = models.job("demo", prompt="a red mug on a yellow background", seed=3, **ASKED)
    (made,) = pictures(models.engine("demo"), job, Inputs(mug, background))
    kept = background == 0
    # through the encoder and back, so near and not equal
    assert np.abs(made[kept].astype(int) - mug[kept]).mean() < 25
    red, green, blue = (int(np.median(made[~kept][:, channel])) for channel in range(3))
    assert red > 180, (red, green, blue)
    assert green > 150, (red, green, blue)
    assert blue < 100, (red, green, blue)


def test_a_unet_that_takes_the_mask_itself_is_refused(models: SmallModels) -> None:
    pipeline = models.fresh("tiny-sd15")
    pipeline.family.denoiser.register_to_config(in_channels=9)
    with pytest.raises(RenderError, match="9 channels"):
        StepEngine(pipeline, max_images=1).add(models.job("tiny-sd15", **ASKED), INPUTS)
