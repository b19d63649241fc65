"""Product mode in the engine: a model that can inpaint sees the subject, another makes a background from words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from imagefarm.model_entry import ModelEntry
from tests.worker.model_jobs import SmallModels, claimed, finish, psnr
from worker.engine.engine import StepEngine
from worker.engine.results import RenderedJob
from worker.inputs.cutout import cut_out
from worker.inputs.input_images import Inputs
from worker.inputs.scene import placed
from worker.output.compositing import composite

SUBJECT = {"image": "asset_" + "0" * 26, "place": {"scale": 1}}


def box(side: int = 64) -> Image.Image:
    """A red box with a white band, cut out."""
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[14:54, 14:50] = (200, 30, 30, 255)
    rgba[28:36, 14:50, :3] = 250
    return Image.fromarray(rgba)


def inputs_of(job: Any) -> Inputs:
    recipe = job.recipe
    return Inputs(subject=placed(recipe.subject, cut_out(box(), "alpha", None), recipe.width, recipe.height))


def rendered(engine: StepEngine, job: Any) -> RenderedJob:
    engine.add(job, inputs_of(job))
    ended = finish(engine)[job.id]
    assert isinstance(ended, RenderedJob), ended
    return ended


def without_inpaint(entry: ModelEntry) -> ModelEntry:
    return entry.model_copy(update={"features": ()})


def test_the_demo_paints_around_the_subject(models: SmallModels) -> None:
    job = models.job("demo", prompt="a red box on a blue background", seed=1, subject=SUBJECT)
    ended = rendered(models.engine("demo"), job)
    (image,) = ended.images
    told = image.facts["subject"]
    assert told == {"mask": "alpha", "box": [14, 12, 36, 40], "scale": 1, "opaque_pixels": 1440, "tool": "inpaint"}
    # the model saw the band, which no word speaks of
    band, above = image.pixels[26:34, 26:38].mean(axis=(0, 1)), image.pixels[16:24, 26:38].mean(axis=(0, 1))
    assert band[1] > above[1] + 60
    made = composite(image.pixels, job.recipe, ended.inputs)
    assert np.array_equal(made[12:52, 14:50], np.asarray(box())[14:54, 14:50, :3])
    corner = made[:6, :6].reshape(-1, 3).mean(axis=0)
    assert corner[2] > corner[0] + 60, corner


def test_a_model_that_cannot_inpaint_makes_a_background(models: SmallModels) -> None:
    pipeline = replace(models.pipeline("demo"), entry=without_inpaint(models.catalogue.get("demo")))
    job = models.job("demo", prompt="a red box on a blue background", seed=1, subject=SUBJECT)
    ended = rendered(StepEngine(pipeline, max_images=1), job)
    assert ended.images[0].facts["subject"]["tool"] == "text"
    plain_job = models.job("demo", prompt="a red box on a blue background", seed=1)
    engine = models.engine("demo")
    engine.add(plain_job)
    plain = finish(engine)[plain_job.id]
    assert isinstance(plain, RenderedJob)
    assert np.array_equal(plain.images[0].pixels, ended.images[0].pixels)


@pytest.mark.parametrize("model", ["tiny-z-image", "tiny-sd15", "tiny-sdxl", "tiny-omni"])
def test_every_family_has_product_mode(models: SmallModels, model: str) -> None:
    job = models.job(model, subject=SUBJECT, width=64, height=64, upscale={"scale": 2})
    ended = rendered(models.engine(model), job)
    assert ended.images[0].facts["subject"]["tool"] == ("text" if model == "tiny-omni" else "inpaint")
    made = composite(ended.images[0].pixels, job.recipe, ended.inputs)
    assert made.shape == (128, 128, 3)


def test_a_subject_may_stand_on_a_plain_background(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blank picture is retried isolated; a blank background of a subject is a background."""

    def blank(pixels: NDArray[np.uint8]) -> bool:
        return True

    monkeypatch.setattr("worker.engine.engine.is_blank", blank)
    (image,) = rendered(models.engine("tiny-z-image"), models.job("tiny-z-image", subject=SUBJECT)).images
    assert (image.warnings, image.facts["remarks"]) == ([], [])


def test_neighbours_are_not_changed(models: SmallModels) -> None:
    alone = models.job("tiny-z-image", seed=5)
    engine = models.engine("tiny-z-image")
    engine.add(alone)
    by_itself = finish(engine)[alone.id]
    together = claimed(models.catalogue, model="tiny-z-image", seed=5)
    engine.add(together)
    subject = models.job("tiny-z-image", subject=SUBJECT)
    engine.add(subject, inputs_of(subject))
    ended = finish(engine)
    assert isinstance(by_itself, RenderedJob)
    beside = ended[together.id]
    assert isinstance(beside, RenderedJob)
    assert psnr(beside.images[0].pixels, by_itself.images[0].pixels) > 60
