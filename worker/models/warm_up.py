"""Warm-up: a first image without a job, so that libraries, kernels and caches are ready before the first job."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imagefarm.recipe import Recipe

if TYPE_CHECKING:
    from worker.families.base import Family, Sample
    from worker.models.loading import LoadedPipeline

LONGER = "warm up with words enough for another length: " + "one more word and " * 30
UNPADDED = (32, 64)
"""Token counts of prompts that need no padding."""
MAX_CPU_BYTES = 2**30
"""Bytes of weights. A step of a larger model takes minutes on a CPU, too long for a start."""


def warm_up(pipeline: LoadedPipeline) -> bool:
    """Render one step and one image at the model's default size; return whether that made sense here. Errors propagate."""
    if pipeline.device.type == "cpu" and pipeline.bytes > MAX_CPU_BYTES:
        return False
    family, default = pipeline.family, pipeline.entry.defaults
    recipe = Recipe(
        model=pipeline.name,
        prompt="warm up",
        width=default.width,
        height=default.height,
        steps=1,
        guidance=default.guidance,
        sampler=default.sampler,
        seed=0,
    )
    sample = _sample(family, recipe)
    if pipeline.acceleration.compiled:
        try:
            _compile(family, recipe)
            pipeline.acceleration.has_compiled()
        except Exception as error:  # noqa: BLE001 - whatever a compiler raises: the model renders without it
            pipeline.acceleration.give_up_compiling(error)
    (prediction,) = family.predict([sample])
    family.advance(sample, prediction)
    family.decode(sample.latents).cpu()
    return True


def _compile(family: Family, recipe: Recipe) -> None:
    """Run the passes that a compiler treats differently: one image, several images, several lengths (which need a mask), and
    prompts that need no padding. Other sizes and numbers then run without another compilation.
    """
    image, longer = _sample(family, recipe), _sample(family, recipe.model_copy(update={"prompt": LONGER}))
    passes = [[image], [image, image]]
    if len(longer.prompt.tokens) != len(image.prompt.tokens):
        short, long = (_cut(longer, length) for length in UNPADDED)
        passes += [[image, longer], [long], [long, long], [short, long]]
    for samples in passes:
        family.predict(samples)


def _cut(sample: Sample, length: int) -> Sample:
    return replace(sample, prompt=replace(sample.prompt, tokens=sample.prompt.tokens[:length]))


def _sample(family: Family, recipe: Recipe) -> Sample:
    embeddings = {text: family.encode(text) for text in family.texts(recipe)}
    return family.start(recipe, 0, embeddings, dtype=family.dtype)
