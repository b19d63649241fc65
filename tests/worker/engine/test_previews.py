"""Previews show what comes, cost nobody who did not ask, and change no pixel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.worker.model_jobs import SmallModels, psnr
from worker.engine.engine import StepEngine
from worker.engine.previews import IMAGES
from worker.engine.results import Preview, RenderedJob


def watch(engine: StepEngine, job: Any) -> tuple[list[Preview], list[NDArray[np.uint8]]]:
    """All previews of a job rendered alone, and its pictures."""
    engine.add(job)
    seen: list[Preview] = []
    while True:
        report = engine.step()
        seen += report.previews.get(job.id, [])
        if report.rendered or report.failed:
            [ended] = [*report.rendered, *report.failed]
            assert isinstance(ended, RenderedJob), ended
            return seen, [image.pixels for image in ended.images]


def test_the_demo_is_seen_as_it_comes(models: SmallModels) -> None:
    job = models.job("demo", prompt="a red mug on a white background", seed=42)
    plain, (picture,) = watch(models.engine("demo"), job)
    assert plain == []
    previews, (same,) = watch(models.engine("demo"), replace(job, preview=True))
    assert np.array_equal(picture, same)
    assert [(preview.index, preview.step) for preview in previews] == [(0, step) for step in range(1, 8)]
    small = np.asarray(Image.fromarray(picture).resize((16, 16), Image.Resampling.BOX))
    likeness = [psnr(preview.pixels, small) for preview in previews]
    # a preview is less exact than the decoder; noise or another image would be below 8
    assert min(likeness) > 18, likeness
    assert likeness[-1] > likeness[0], likeness


@pytest.mark.parametrize("model", ["tiny-z-image", "tiny-sd15", "tiny-sdxl", "tiny-omni"])
def test_every_family_has_previews(models: SmallModels, model: str) -> None:
    job = models.job(model, count=IMAGES + 1, width=64, height=96)
    previews, pictures = watch(models.engine(model, max_images=2), replace(job, preview=True))
    assert len(pictures) == IMAGES + 1
    assert {preview.index for preview in previews} == set(range(IMAGES))
    assert {preview.pixels.shape for preview in previews} == {(12, 8, 3)}


@pytest.mark.parametrize("sampler", ["euler", "euler-ancestral", "dpm++-2m", "ddim", "lcm"])
def test_an_estimate_with_nothing_left_to_do_is_the_end(models: SmallModels, sampler: str) -> None:
    """At the last step the estimate of a sampler that adds no noise is what the step gives."""
    family = models.pipeline("tiny-sd15").family
    recipe = models.job("tiny-sd15", sampler=sampler, guidance=0.0, steps=4).recipe
    embeddings = {text: family.encode(text) for text in family.texts(recipe)}
    sample = family.start(recipe, 7, embeddings, dtype=family.dtype)
    while True:
        (prediction,) = family.predict([sample])
        estimate = family.estimate(sample, prediction)
        family.advance(sample, prediction)
        if sample.done:
            break
    # ddim ends at the noise of its last known step rather than at none
    closeness = 0.2 if sampler == "ddim" else 1e-2
    assert float((estimate - sample.latents).abs().mean() / sample.latents.abs().mean()) < closeness


def test_a_long_job_is_looked_at_about_ten_times(models: SmallModels) -> None:
    previews, _ = watch(models.engine("tiny-z-image"), replace(models.job("tiny-z-image", steps=40), preview=True))
    assert 8 <= len(previews) <= 12


def test_a_preview_that_fails_costs_no_picture(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = models.engine("tiny-z-image")

    def broken(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(type(engine.family), "estimate", broken)
    previews, pictures = watch(engine, replace(models.job("tiny-z-image"), preview=True))
    assert (previews, len(pictures)) == ([], 1)
