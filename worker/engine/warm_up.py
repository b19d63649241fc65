"""A first picture that nobody asked for: libraries, kernels and caches are ready before somebody waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagefarm.recipe import Recipe

if TYPE_CHECKING:
    from worker.loading import LoadedPipeline

LARGEST_ON_CPU = 2**30
"""Bytes of weights; a larger model takes minutes for one step on a CPU, which nobody should wait for at the start."""


def warm_up(pipeline: LoadedPipeline) -> bool:
    """Make one step and one picture at the model's default size; return whether it was worth it. Errors are the caller's."""
    if pipeline.device.type == "cpu" and pipeline.bytes > LARGEST_ON_CPU:
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
    embeddings = {text: family.encode(text) for text in family.texts(recipe)}
    sample = family.start(recipe, 0, embeddings, dtype=family.dtype)
    (prediction,) = family.predict([sample])
    family.advance(sample, prediction)
    family.decode(sample.latents).cpu()
    return True
