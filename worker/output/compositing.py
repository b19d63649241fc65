"""What is done to a decoded picture before it becomes a file, and needs no device: enlarging, and a subject on top."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagefarm.recipe import Recipe
from worker.inputs.input_images import Inputs


def composite(pixels: NDArray[np.uint8], recipe: Recipe, inputs: Inputs) -> NDArray[np.uint8]:
    """The picture that a recipe asks for, from what the decoder gave."""
    scale = recipe.upscale.scale if recipe.upscale else 1
    pixels = resized(pixels, recipe.width * scale, recipe.height * scale)
    # after enlarging: the photo has more to show at the larger size than a picture of it
    return pixels if inputs.subject is None else inputs.subject.composed(pixels)


def resized(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The picture at that size by Lanczos; as it is if an upscaler, or nobody, has made it so."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
