"""Every way of holding a model really loads and renders: the same picture, or one as near as its weights allow."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from imagefarm.catalogue import Catalogue
from imagefarm.errors import RenderError
from tests.worker.model_jobs import SmallModels, finish, pictures, psnr
from worker.engine.engine import StepEngine
from worker.engine.results import RenderedJob
from worker.families.base import Sample
from worker.memory import capabilities
from worker.memory.planner import GIB, OffloadMode, Tier, Weights, weight_bytes
from worker.memory.select_tier import select_tier
from worker.memory.sizes import model_size
from worker.memory.weights import stored_bytes
from worker.models.loading import LoadedPipeline, load_pipeline

CPU = torch.device("cpu")
HERE = [tier for tier in Tier if tier.weights is not Weights.NF4]
MIN_PSNR_DB = {Weights.INT8: 39.0, Weights.FP8: 33.0}
"""What the planner says of their fidelity."""


def loaded(models: SmallModels, name: str, tier: Tier) -> LoadedPipeline:
    return load_pipeline(models.catalogue.get(name), models.catalogue, device="cpu", tier=tier)


@pytest.mark.parametrize("tier", HERE)
def test_every_tier_draws_the_picture(models: SmallModels, tier: Tier) -> None:
    job = models.job("tiny-z-image", prompt="a red fox", seed=3, steps=4)
    expected = pictures(models.engine("tiny-z-image", 1), job)[0]
    pipeline = loaded(models, "tiny-z-image", tier)
    picture = pictures(StepEngine(pipeline, max_images=4), job)[0]
    if tier.weights is Weights.FULL:
        assert np.array_equal(picture, expected)
    else:
        assert MIN_PSNR_DB[tier.weights] <= psnr(picture, expected) < float("inf")
    assert pipeline.facts["tier"] == tier
    assert pipeline.facts["weights"] == tier.weights
    full = models.pipeline("tiny-z-image")
    # tiers that compute with other weights must not share embeddings with those that do not
    assert (pipeline.encoder_digest == full.encoder_digest) is (tier.weights is Weights.FULL)
    assert (pipeline.bytes < full.bytes) is (tier is not Tier.RESIDENT)


@pytest.mark.parametrize(
    ("name", "tier"),
    [
        ("tiny-sd15", Tier.INT8),
        ("tiny-sd15", Tier.SEQUENTIAL),
        ("tiny-sdxl", Tier.FP8),
        ("tiny-sdxl", Tier.ENCODER_SWAPPED),
        ("tiny-omni", Tier.INT8_ENCODER_SWAPPED),
    ],
)
def test_other_families_take_tiers_too(models: SmallModels, name: str, tier: Tier) -> None:
    job = models.job(name, prompt="a red fox", seed=3, steps=3)
    expected = pictures(models.engine(name, 1), job)[0]
    picture = pictures(StepEngine(loaded(models, name, tier), max_images=4), job)[0]
    assert psnr(picture, expected) >= MIN_PSNR_DB.get(tier.weights, float("inf"))


def test_encoder_and_denoiser_take_turns_for_new_prompts_only(models: SmallModels) -> None:
    pipeline = loaded(models, "tiny-z-image", Tier.ENCODER_SWAPPED)
    encoder_swap = pipeline.encoder_swap
    assert encoder_swap is not None
    assert encoder_swap.swaps == 0
    engine = StepEngine(pipeline, max_images=8)
    for number in range(3):
        engine.add(models.job("tiny-z-image", prompt=f"fox {number}", steps=2))
    assert (encoder_swap.present, encoder_swap.swaps) == ("encoder", 1)
    finish(engine)
    assert (encoder_swap.present, encoder_swap.swaps) == ("denoiser", 2)
    engine.add(models.job("tiny-z-image", prompt="fox 1", seed=9, steps=2))
    finish(engine)
    assert encoder_swap.swaps == 2, "its prompt was in the cache"
    engine.add(models.job("tiny-z-image", prompt="fox 4", steps=2))
    finish(engine)
    assert encoder_swap.swaps == 4


def test_who_goes_out_goes_before_who_comes_in(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a second device that is not there, where everybody was sent is all that can be seen."""
    pipeline = loaded(models, "tiny-z-image", Tier.ENCODER_SWAPPED)
    moves: list[tuple[str, str]] = []
    pipe = pipeline.family.pipe
    assert pipeline.encoder_swap is not None
    pipeline.encoder_swap.where = torch.device("meta")
    for name in ("text_encoder", "transformer"):
        monkeypatch.setattr(getattr(pipe, name), "to", lambda where, name=name: moves.append((name, where.type)))
    pipeline.encoder_swap.swap_in("encoder")
    pipeline.encoder_swap.swap_in("encoder")
    pipeline.encoder_swap.swap_in("denoiser")
    assert moves == [("transformer", "cpu"), ("text_encoder", "meta"), ("text_encoder", "cpu"), ("transformer", "meta")]


def test_int8_weights_take_a_quarter_of_float32(models: SmallModels) -> None:
    full, narrow = models.pipeline("tiny-z-image"), loaded(models, "tiny-z-image", Tier.INT8)
    weight, stored = (pipeline.family.pipe.transformer.layers[0].attention.to_q.weight for pipeline in (full, narrow))
    assert stored_bytes(weight) == 4 * weight.numel()
    assert weight.numel() < stored_bytes(stored) < 1.2 * weight.numel()
    entry = models.catalogue.get("tiny-z-image")
    size, _ = model_size(entry, models.catalogue, width=4)
    # scales and buffers come on top
    assert narrow.bytes == pytest.approx(weight_bytes(size, Tier.INT8), rel=0.1)


def test_loras_go_on_narrow_weights_and_off_again(models: SmallModels) -> None:
    for tier in (Tier.INT8, Tier.ENCODER_SWAPPED, Tier.GROUP_OFFLOAD):
        pipeline = loaded(models, "tiny-z-image", tier)
        plain = models.job("tiny-z-image", steps=2)
        brushed = models.job("tiny-z-image", steps=2, loras=[{"name": "brush", "weight": 1.0}])
        before = pictures(StepEngine(pipeline, max_images=1), plain)[0]
        with_lora = pictures(StepEngine(pipeline, max_images=1), brushed)[0]
        assert not np.array_equal(before, with_lora)
        assert np.array_equal(pictures(StepEngine(pipeline, max_images=1), plain)[0], before)


def test_an_isolated_retry_at_narrow_weights_stays_at_their_dtype(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load_pipeline(models.catalogue.get("tiny-z-image"), models.catalogue, device="cpu", tier=Tier.GROUP_OFFLOAD)
    predict, spoiled = pipeline.family.predict, list[int]()

    def spoil(samples: Sequence[Sample]) -> list[torch.Tensor]:
        predictions = predict(samples)
        if not spoiled:
            spoiled.append(1)
            with torch.inference_mode():
                predictions[0].view(-1)[0] = float("nan")
        return predictions

    monkeypatch.setattr(pipeline.family, "predict", spoil)
    job = models.job("tiny-z-image", steps=2)
    engine = StepEngine(pipeline, max_images=2)
    engine.add(job)
    made = finish(engine)[job.id]
    assert isinstance(made, RenderedJob)
    assert made.images[0].facts["remarks"] == ["made again alone in float32: latents were not finite"]
    assert pipeline.safest_dtype is pipeline.dtype


@pytest.mark.parametrize("tier", [Tier.NF4, Tier.NF4_ENCODER_SWAPPED])
def test_nf4_says_what_it_needs(models: SmallModels, tier: Tier) -> None:
    with pytest.raises(RenderError, match="needs a GPU") as caught:
        loaded(models, "tiny-z-image", tier)
    assert caught.value.code == "not_supported"


def test_without_torchao_int8_is_refused_and_skipped(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sys.modules.get("torchao", "") is not None, "an int8 test has run before, and made it visible"
    monkeypatch.setattr(capabilities, "_installed", lambda package: package != "torchao")
    with pytest.raises(RenderError, match=r"pip install 'imagefarm-server\[int8\]'") as caught:
        loaded(models, "tiny-z-image", Tier.INT8)
    assert caught.value.code == "not_supported"
    assert (
        selected_tier(models.catalogue, "tiny-z-image", memory=8 * GIB, budget=models.pipeline("tiny-z-image").bytes * 3 // 4)
        is Tier.FP8
    )


def selected_tier(catalogue: Catalogue, name: str, *, memory: int, budget: int | None = None, wanted: str = "auto") -> Tier:
    return select_tier(catalogue.get(name), catalogue, CPU, width=4, memory=memory, budget=budget, wanted=wanted).tier


def test_the_best_tier_that_fits_is_taken(models: SmallModels) -> None:
    catalogue, full = models.catalogue, models.pipeline("tiny-z-image").bytes
    assert selected_tier(catalogue, "tiny-z-image", memory=8 * GIB) is Tier.RESIDENT
    assert selected_tier(catalogue, "tiny-z-image", memory=8 * GIB, budget=full * 3 // 4) is Tier.INT8
    assert selected_tier(catalogue, "tiny-z-image", memory=8 * GIB, wanted="group-offload") is Tier.GROUP_OFFLOAD
    with pytest.raises(RenderError, match="model_memory_gib allows") as caught:
        selected_tier(catalogue, "tiny-z-image", memory=8 * GIB, budget=1000)
    assert caught.value.code == "oom"
    with pytest.raises(RenderError, match="needs a GPU") as caught:
        selected_tier(catalogue, "tiny-z-image", memory=8 * GIB, wanted="nf4")
    assert caught.value.code == "not_supported"


def test_the_catalogue_may_name_a_models_tier(models: SmallModels) -> None:
    entry = models.catalogue.get("tiny-z-image").model_copy(update={"tier": "int8"})
    assert select_tier(entry, models.catalogue, CPU, width=4, memory=8 * GIB).tier is Tier.INT8
    assert select_tier(entry, models.catalogue, CPU, width=4, memory=8 * GIB, wanted="fp8").tier is Tier.INT8


def test_one_tier_down_always_holds_fewer_weights(models: SmallModels) -> None:
    entry = models.catalogue.get("tiny-z-image")
    lower = select_tier(entry, models.catalogue, CPU, width=4, memory=8 * GIB, below=Tier.RESIDENT)
    assert lower.tier is Tier.INT8, "tiers that only move weights do not help where host and device share memory"
    with pytest.raises(RenderError, match="no tier below fp8"):
        select_tier(entry, models.catalogue, CPU, width=4, memory=8 * GIB, below=Tier.FP8)


def test_names_say_what_they_are() -> None:
    assert (Tier.INT8_ENCODER_SWAPPED.weights, Tier.INT8_ENCODER_SWAPPED.offload_mode) == (
        Weights.INT8,
        OffloadMode.ENCODER_SWAPPED,
    )
    assert (Tier.ENCODER_SWAPPED.weights, Tier.GROUP_OFFLOAD.offload_mode) == (Weights.FULL, OffloadMode.BLOCKS)
