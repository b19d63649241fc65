"""Steps between a decoded image and its file."""

from __future__ import annotations

import numpy as np
from PIL import Image

from imagefarm.catalogue import Catalogue
from imagefarm.recipe import JobRequest
from worker.inputs.input_images import NOTHING
from worker.output.compositing import composite


def test_lanczos_is_pillows(catalogue: Catalogue) -> None:
    plain = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for upscale in (None, {"scale": 3}, {"model": "lanczos", "scale": 2}):
        recipe, _ = catalogue.resolve(JobRequest.model_validate({"prompt": "x", "upscale": upscale}))
        scale = upscale["scale"] if upscale else 1
        expected = np.asarray(Image.fromarray(plain).resize((64 * scale, 64 * scale), Image.Resampling.LANCZOS))
        assert np.array_equal(composite(plain, recipe, NOTHING), expected if upscale else plain)
