"""A first picture that nobody asked for: libraries, kernels and caches are ready before somebody waits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imagefarm.recipe import Recipe

if TYPE_CHECKING:
    from worker.families.base import Family, Sample
    from worker.models.loading import LoadedPipeline

LONGER = "warm up with words enough for another length: " + "one more word and " * 30
UNPADDED = (32, 64)
"""Tokens of prompts that fill their places just so."""
MAX_CPU_BYTES = 2**30
"""Bytes of weights; a larger model takes minutes for one step on a CPU, which nobody should wait for at the start."""


def warm_up(pipeline: LoadedPipeline) -> bool:
    """Make one step and one picture at the model's default size; return whether it was worth it. Errors are the caller's."""
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
    """Run the passes that differ for a compiler: one image, more than one, images of different lengths, which need a mask, and
    prompts of just a length that needs no padding. Compiled now, a size or number that comes later runs at once.
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
