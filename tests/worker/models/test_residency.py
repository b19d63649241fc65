"""Models stay loaded under a budget, the least recently used leave first, and a broken one fails fast for a while."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from imagefarm.catalogue import Catalogue
from imagefarm.errors import RenderError, UnknownModel
from imagefarm.settings import Settings
from tests.worker.model_jobs import SmallModels, pictures
from worker.engine.engine import StepEngine
from worker.memory.planner import Tier, weight_bytes
from worker.memory.sizes import model_size
from worker.models import residency as residency_module
from worker.models.residency import Residency
from worker.models.warm_up import warm_up
from worker.upscalers.nets import Net


@pytest.fixture
def resident(models: SmallModels, settings: Settings) -> Callable[..., Residency]:
    """A residency with a budget in bytes."""

    def make(budget: int, catalogue: Catalogue | None = None) -> Residency:
        return Residency(
            catalogue or models.catalogue, settings.model_copy(update={"model_memory_gib": budget / 2**30, "device": "cpu"})
        )

    return make


def size(models: SmallModels, *names: str) -> int:
    return sum(
        weight_bytes(model_size(models.catalogue.get(name), models.catalogue, width=4)[0], Tier.RESIDENT) for name in names
    )


def test_expected_bytes_are_the_loaded_ones(models: SmallModels) -> None:
    for name in ("tiny-z-image", "tiny-sd15", "tiny-sdxl"):
        # buffers come on top of the weights: a few position numbers
        assert models.pipeline(name).bytes == pytest.approx(size(models, name), rel=0.01)


def test_the_least_recently_used_leaves(models: SmallModels, resident: Callable[..., Residency]) -> None:
    residency = resident(int(size(models, "tiny-z-image", "tiny-sd15") * 1.02))
    first = residency.get("tiny-sd15")
    residency.get("tiny-z-image")
    assert residency.get("tiny-sd15") is first
    assert residency.names == ("tiny-z-image", "tiny-sd15")
    residency.get("tiny-sdxl")
    assert residency.names == ("tiny-sd15", "tiny-sdxl")
    assert residency.bytes <= residency.budget
    assert residency.evictions == 1
    assert residency.get("tiny-sd15") is first
    assert set(residency.load_s) == {"tiny-sd15", "tiny-z-image", "tiny-sdxl"}


def test_an_upscaler_counts_with_its_pipeline(
    models: SmallModels, resident: Callable[..., Residency], monkeypatch: pytest.MonkeyPatch
) -> None:
    residency = resident(int(size(models, "tiny-z-image", "tiny-sd15") * 1.02))
    upscaling = residency.get("tiny-sd15")
    alone = residency.bytes
    net = Net("large", None, 4, residency.device, torch.float32, 256, 16, {}, bytes=alone)
    monkeypatch.setattr(upscaling.upscalers, "_load", lambda _name: net)
    upscaling.upscalers.get("large")
    assert residency.bytes == 2 * alone
    residency.get("tiny-z-image")
    assert residency.names == ("tiny-z-image",), "no room beside a model and its upscaler"


def test_a_large_one_makes_all_leave(models: SmallModels, resident: Callable[..., Residency]) -> None:
    residency = resident(int(size(models, "demo") * 1.02))
    residency.get("tiny-sd15")
    residency.get("tiny-sdxl")
    residency.get("demo")
    assert residency.names == ("demo",)


def test_a_model_over_the_budget_says_so(models: SmallModels, resident: Callable[..., Residency]) -> None:
    residency = resident(2**20)
    with pytest.raises(RenderError, match="model_memory_gib allows; raise it") as caught:
        residency.get("demo")
    assert caught.value.code == "oom"


def test_one_tier_down_holds_until_the_model_leaves(models: SmallModels, resident: Callable[..., Residency]) -> None:
    residency = resident(2**30)
    assert residency.step_down("tiny-z-image") is None, "it is not loaded"
    assert residency.get("tiny-z-image").tier is Tier.RESIDENT
    assert residency.step_down("tiny-z-image") is Tier.INT8
    assert residency.names == ()
    lower = residency.get("tiny-z-image")
    assert lower.tier is Tier.INT8
    assert pictures(StepEngine(lower, max_images=1), models.job("tiny-z-image", steps=1))
    assert residency.step_down("tiny-z-image") is None, "nothing holds less here"
    assert residency.get("tiny-z-image") is lower
    residency.unload("tiny-z-image")
    assert residency.get("tiny-z-image").tier is Tier.RESIDENT


def test_embeddings_leave_with_their_encoder(models: SmallModels, resident: Callable[..., Residency]) -> None:
    residency = resident(2**30)
    pictures(StepEngine(residency.get("tiny-z-image"), max_images=1), models.job("tiny-z-image", steps=1))
    assert len(residency.embeddings) == 1
    assert residency.unload("tiny-z-image")
    assert not residency.unload("tiny-z-image")
    assert (len(residency.embeddings), residency.embeddings.nbytes) == (0, 0)


def test_a_model_that_is_slow_here_is_not_warmed_up(models: SmallModels) -> None:
    assert warm_up(models.pipeline("tiny-sdxl"))
    slow = models.fresh("tiny-sd15")
    slow.bytes = 2**31
    assert not warm_up(slow)


def test_unknown_models_are_named(resident: Callable[..., Residency]) -> None:
    with pytest.raises(UnknownModel):
        resident(2**30).get("nobody")


def test_a_broken_model_fails_fast_then_is_tried_again(
    models: SmallModels, resident: Callable[..., Residency], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(models.folder / "sd15", tmp_path / "sd15")
    shutil.copy(models.folder / "models.toml", tmp_path)
    weights = tmp_path / "sd15" / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    residency = resident(2**30, Catalogue.read(tmp_path / "models.toml"))
    with pytest.raises(RenderError) as first:
        residency.get("tiny-sd15")
    weights.write_bytes(whole)
    with pytest.raises(RenderError) as second:
        residency.get("tiny-sd15")
    assert (second.value.code, second.value.detail) == (first.value.code, first.value.detail)
    assert residency.names == ()
    monkeypatch.setattr(residency_module, "FAILED_FOR_S", 0.0)
    residency.get("tiny-sd15")
    assert residency.names == ("tiny-sd15",)
