"""A job alone in the engine gives the very pixels that its diffusers pipeline gives, for every family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    ZImageImg2ImgPipeline,
    ZImageOmniPipeline,
    ZImagePipeline,
)
from numpy.typing import NDArray
from PIL import Image

from imagefarm.settings import PROJECT_ROOT
from scheduler.queue.claim import ClaimedJob
from tests.worker.model_jobs import SmallModels, pictures
from worker.engine.engine import StepEngine
from worker.families.samplers import SAMPLERS
from worker.inputs.input_images import Inputs

Pipes = dict[str, Any]
OFFLINE = {"use_safetensors": True, "local_files_only": True, "dtype": torch.float32}
PHOTO = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pipes(models: SmallModels) -> Pipes:
    """The same weights, loaded by diffusers alone."""
    made = {
        "demo": ZImagePipeline.from_pretrained(PROJECT_ROOT / "models" / "demo", **OFFLINE),
        "tiny-z-image": ZImagePipeline.from_pretrained(models.folder / "z-image", **OFFLINE),
        "tiny-sd15": StableDiffusionPipeline.from_pretrained(models.folder / "sd15", **OFFLINE),
        "tiny-sdxl": StableDiffusionXLPipeline.from_pretrained(models.folder / "sdxl", **OFFLINE),
    }
    for pipe in made.values():
        pipe.set_progress_bar_config(disable=True)
    return made


def run(pipe: Any, job: ClaimedJob, *, index: int = 0, **more: Any) -> NDArray[np.uint8]:
    """The picture that the pipeline itself draws for a job's recipe."""
    recipe = job.recipe
    parameters = {
        "prompt": recipe.prompt,
        "negative_prompt": recipe.negative_prompt or None,
        "width": recipe.width,
        "height": recipe.height,
        "num_inference_steps": recipe.steps,
        "guidance_scale": recipe.guidance,
        "generator": torch.Generator("cpu").manual_seed(recipe.seed_of(index)),
    }
    return np.asarray(pipe(**{key: value for key, value in (parameters | more).items() if value is not ...}).images[0])


@pytest.mark.parametrize(
    ("prompt", "seed", "asked"),
    [
        ("a red mug on a white background", 1, {"steps": 8}),
        ("白色背景上的红色马克杯", 2**64 - 1, {"steps": 4}),
        ("a blue vase", 3, {"steps": 6, "guidance": 2.5}),
    ],
)
def test_demo(pipes: Pipes, models: SmallModels, prompt: str, seed: int, asked: dict[str, Any]) -> None:
    job = models.job("demo", prompt=prompt, seed=seed, **asked)
    (made,) = pictures(models.engine("demo"), job)
    assert np.array_equal(made, run(pipes["demo"], job))


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"width": 96, "height": 160, "steps": 5},
        {"guidance": 4.0, "negative_prompt": "blurry"},
        {"guidance": 0.7, "width": 80},
    ],
    ids=["plain", "tall", "guided", "weakly-guided"],
)
def test_z_image(pipes: Pipes, models: SmallModels, asked: dict[str, Any]) -> None:
    job = models.job("tiny-z-image", **asked)
    (made,) = pictures(models.engine("tiny-z-image"), job)
    assert np.array_equal(made, run(pipes["tiny-z-image"], job))


@pytest.mark.parametrize("model", ["tiny-sd15", "tiny-sdxl"])
@pytest.mark.parametrize("sampler", ["euler", "euler-ancestral", "dpm++-2m", "ddim"])
@pytest.mark.parametrize(
    "asked",
    [{"guidance": 5.0, "negative_prompt": "blurry"}, {"guidance": 5.0}, {"guidance": 0.0}],
    ids=["negative", "no-negative", "unguided"],
)
def test_unet(pipes: Pipes, models: SmallModels, model: str, sampler: str, asked: dict[str, Any]) -> None:
    job = models.job(model, width=64, height=72, sampler=sampler, **asked)
    (made,) = pictures(models.engine(model), job)
    pipes[model].scheduler = SAMPLERS[sampler].from_config(models.pipeline(model).family.pipe.scheduler.config)
    assert np.array_equal(made, run(pipes[model], job))


def test_lcm_lora(models: SmallModels) -> None:
    job = models.job("tiny-lcm")
    (made,) = pictures(models.engine("tiny-lcm"), job)
    pipe = StableDiffusionPipeline.from_pretrained(models.folder / "sd15", **OFFLINE)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = SAMPLERS["lcm"].from_config(pipe.scheduler.config)
    plain = run(pipe, job)
    pipe.load_lora_weights(models.folder / "lcm-lora", use_safetensors=True)
    pipe.fuse_lora(lora_scale=0.8)
    assert np.array_equal(made, run(pipe, job))
    assert not np.array_equal(made, plain)


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize(
    ("model", "pipe_class"),
    [
        ("tiny-z-image", ZImageImg2ImgPipeline),
        ("tiny-sd15", StableDiffusionImg2ImgPipeline),
        ("tiny-sdxl", StableDiffusionXLImg2ImgPipeline),
    ],
)
def test_image_to_image(pipes: Pipes, models: SmallModels, model: str, pipe_class: Any, strength: float) -> None:
    job = models.job(model, steps=6, guidance=5.0, init_image="asset_" + "0" * 26, strength=strength)
    (made,) = pictures(models.engine(model), job, Inputs(PHOTO))
    scheduler_class = FlowMatchEulerDiscreteScheduler if model == "tiny-z-image" else SAMPLERS["euler"]
    scheduler = scheduler_class.from_config(models.pipeline(model).family.pipe.scheduler.config)
    pipe = pipe_class(**{**pipes[model].components, "scheduler": scheduler})
    pipe.set_progress_bar_config(disable=True)
    # the Stable Diffusion ones take the size from the image
    sizes = {} if model == "tiny-z-image" else {"width": ..., "height": ...}
    assert np.array_equal(made, run(pipe, job, image=Image.fromarray(PHOTO), strength=strength, **sizes))


@pytest.mark.parametrize("guidance", [0.0, 3.0])
@pytest.mark.parametrize("has_image", [False, True], ids=["from-text", "edit"])
def test_omni(models: SmallModels, guidance: float, has_image: bool) -> None:
    pipeline = models.fresh("tiny-omni")
    pipe = ZImageOmniPipeline.from_pretrained(models.folder / "omni", **OFFLINE)
    pipe.set_progress_bar_config(disable=True)
    more: dict[str, Any] = {}
    if has_image:
        # the pipeline reads images in bfloat16 only
        pipe.to(torch.bfloat16)
        pipeline.family.pipe.to(torch.bfloat16)
        pipeline.family.dtype = torch.bfloat16
        more = {"init_image": "asset_" + "0" * 26}
    job = models.job("tiny-omni", guidance=guidance, negative_prompt="blurry", width=64, height=64, **more)
    (made,) = pictures(StepEngine(pipeline, max_images=1), job, Inputs(PHOTO if has_image else None))
    expected = run(pipe, job, image=[Image.fromarray(PHOTO)] if has_image else None)
    assert np.array_equal(made, expected)


def test_count_gives_seeds_in_a_row(pipes: Pipes, models: SmallModels) -> None:
    job = models.job("tiny-z-image", seed=2**64 - 1, count=2)
    # one image a pass: each is as if it were alone
    made = pictures(models.engine("tiny-z-image", max_images=1), job)
    assert np.array_equal(made[0], run(pipes["tiny-z-image"], job, index=0))
    assert np.array_equal(made[1], run(pipes["tiny-z-image"], job, index=1))
