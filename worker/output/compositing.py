"""Work on a decoded image that needs no device: upscaling by Lanczos and compositing a subject."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagefarm.recipe import Recipe
from worker.inputs.input_images import Inputs


def composite(pixels: NDArray[np.uint8], recipe: Recipe, inputs: Inputs) -> NDArray[np.uint8]:
    """The recipe's image, from the decoder's."""
    scale = recipe.upscale.scale if recipe.upscale else 1
    pixels = resized(pixels, recipe.width * scale, recipe.height * scale)
    # after upscaling: the photo has more detail at the larger size than an upscaled copy of it
    return pixels if inputs.subject is None else inputs.subject.composed(pixels)


def resized(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The image at that size by Lanczos; unchanged if it already has that size."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
