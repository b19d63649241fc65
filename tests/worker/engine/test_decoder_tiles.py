"""The decoder in tiles from the start, by setting: nearly the same picture, said with it, in less memory for the planner."""

from __future__ import annotations

import numpy as np
import pytest

from tests.worker.model_jobs import SmallModels, finish, pictures, psnr
from worker.engine.engine import StepEngine
from worker.engine.results import RenderedJob
from worker.memory.planner import GIB, ModelSize, plan


@pytest.mark.parametrize("model", ["tiny-z-image", "tiny-sd15"])
def test_tiles_draw_nearly_the_same(models: SmallModels, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    pipeline = models.fresh(model)
    vae = pipeline.family.vae
    monkeypatch.setattr(vae, "tile_latent_min_size", 24)
    monkeypatch.setattr(vae, "tile_sample_min_size", 24 * 8)
    large, small = models.job(model, width=256, height=192), models.job(model, width=64, height=64)
    (whole,) = pictures(models.engine(model), large)
    engine = StepEngine(pipeline, max_images=2, tiled=True)
    engine.add(large)
    made = finish(engine)[large.id]
    assert isinstance(made, RenderedJob)
    image = made.images[0]
    assert image.facts["decode"]["tiled"]
    assert image.warnings == ["tiled"]
    assert image.facts["remarks"] == ["decoded in tiles, as vae_tiling asks"]
    assert not np.array_equal(image.pixels, whole)
    assert psnr(image.pixels, whole) > 20
    assert not pipeline.decode_limits.fails_alone(256 * 192), "nothing ran out of memory"
    # an image that fits into one tile is decoded whole, bit for bit
    assert np.array_equal(pictures(engine, small)[0], pictures(models.engine(model), small)[0])


def test_the_planner_counts_with_tiles() -> None:
    size = ModelSize(denoiser=10_000, encoders=10_000, vae=10_000, activation_bytes=200)

    def tiled(vram: int, *, always: bool) -> list[bool]:
        best, *_ = plan(size, vram, [(512, 512), (2048, 2048)], tiled=always)
        assert all(fit.images for fit in best.fits)
        return [fit.tiled for fit in best.fits]

    assert tiled(4 * GIB, always=False) == [False, True], "6 GiB would be needed"
    assert tiled(64 * GIB, always=False) == [False, False]
    assert tiled(64 * GIB, always=True) == [False, True], "a small picture is one tile"
