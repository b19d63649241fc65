"""What is done to a decoded picture before it becomes a file, and needs no device: enlarging, and a subject on top."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagefarm.recipe import Recipe, Upscale
from worker.inputs import Inputs


def retouched(pixels: NDArray[np.uint8], recipe: Recipe, inputs: Inputs) -> NDArray[np.uint8]:
    """The picture that a recipe asks for, from what the decoder gave."""
    pixels = upscaled(pixels, recipe.upscale)
    # after enlarging: the photo has more to show at the larger size than a picture of it
    return pixels if inputs.subject is None else inputs.subject.composed(pixels)


def upscaled(pixels: NDArray[np.uint8], upscale: Upscale | None) -> NDArray[np.uint8]:
    """Enlarge by Lanczos, `upscale.scale` times each side; None leaves the picture as it is."""
    if upscale is None:
        return pixels
    height, width, _ = pixels.shape
    size = (width * upscale.scale, height * upscale.scale)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
