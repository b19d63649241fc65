"""Acceleration changes only the last bits, is recorded in the audit, is refused where it is unavailable, and is off in an
isolated retry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from imagefarm.errors import ConfigurationError
from imagefarm.settings import load_settings
from scheduler.queue.claim import ClaimedJob
from tests.worker.model_jobs import SmallModels, finish, pictures, psnr
from worker.engine.engine import StepEngine
from worker.engine.results import FailedJob, RenderedJob
from worker.memory.planner import Tier
from worker.models import acceleration
from worker.models.acceleration import KERNELS, Acceleration, AccelerationSettings
from worker.models.loading import LoadedPipeline, load_pipeline
from worker.models.warm_up import warm_up

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def loaded(models: SmallModels, name: str, wanted: AccelerationSettings, tier: Tier = Tier.RESIDENT) -> LoadedPipeline:
    return load_pipeline(models.catalogue.get(name), models.catalogue, device="cpu", acceleration_settings=wanted, tier=tier)


@pytest.fixture
def compiled_graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A compiler that takes the code apart as every one does, runs it as it is, and counts."""
    graphs: list[int] = []

    def backend(graph: Any, _inputs: Any) -> Callable[..., Any]:
        graphs.append(1)
        forward: Callable[..., Any] = graph.forward
        return forward

    torch._dynamo.reset()
    monkeypatch.setattr(acceleration, "BACKEND", backend)
    yield graphs
    torch._dynamo.reset()
    torch._dynamo.config.suppress_errors = False


def rendered(
    models: SmallModels, engine: StepEngine, *sizes: tuple[int, int, int]
) -> list[tuple[ClaimedJob, list[NDArray[np.uint8]]]]:
    """Jobs of (width, images, words) that join one after another, each as soon as it may."""
    ended: dict[str, RenderedJob | FailedJob] = {}
    jobs = [
        models.job(engine.pipeline.name, width=width, height=64, count=count, prompt="mug " * words, steps=2)
        for width, count, words in sizes
    ]
    for job in jobs:
        if engine.compat_key not in (None, job.compat_key):
            ended |= finish(engine)
        engine.add(job)
        ended |= {one.job.id: one for one in engine.step().rendered}
    ended |= finish(engine) if engine.jobs else {}
    made = [ended[job.id] for job in jobs]
    assert all(isinstance(one, RenderedJob) for one in made), made
    return [(one.job, [image.pixels for image in one.images]) for one in made if isinstance(one, RenderedJob)]


@pytest.mark.parametrize("model", ["tiny-z-image", "tiny-sd15"])
def test_sizes_numbers_and_lengths_need_no_compilation_of_their_own(
    models: SmallModels, compiled_graphs: list[int], model: str
) -> None:
    pipeline = loaded(models, model, AccelerationSettings(compiled=True))
    assert pipeline.facts["acceleration"] == {"compiled": "blocks"}
    warm_up(pipeline)
    warm = len(compiled_graphs)
    assert warm
    engine = StepEngine(pipeline, max_images=4)
    made = rendered(models, engine, (64, 1, 1), (96, 2, 2), (64, 1, 30), (80, 1, 40))
    compiled = len(compiled_graphs)
    assert compiled <= warm + 2  # how Z-Image's captions are padded may give rotations other strides: a kind, not a size
    made += rendered(models, engine, (112, 1, 3), (128, 3, 8), (48, 2, 35), (32, 1, 41))
    assert len(compiled_graphs) == compiled, "a size, number or length was compiled by itself"
    for job, pixels in made:
        for mine, plain in zip(pixels, pictures(models.engine(model), job), strict=True):
            assert psnr(mine, plain) > 60


def test_a_compiler_that_fails_costs_nothing_but_its_gain(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no space left for kernels")

    torch._dynamo.reset()
    monkeypatch.setattr(acceleration, "BACKEND", broken)
    pipeline = loaded(models, "tiny-z-image", AccelerationSettings(compiled=True))
    assert warm_up(pipeline)
    assert pipeline.facts["acceleration"] == {"compiled": "no: BackendCompilerFailed"}
    job = models.job("tiny-z-image")
    (made,) = pictures(StepEngine(pipeline, max_images=2), job)
    assert np.array_equal(made, pictures(models.engine("tiny-z-image"), job)[0])


def test_weights_that_hooks_handle_are_not_compiled(models: SmallModels) -> None:
    pipeline = loaded(models, "tiny-z-image", AccelerationSettings(compiled=True), Tier.FP8)
    assert pipeline.facts["acceleration"]["compiled"].startswith("no: at tier fp8")
    assert all(module._compiled_call_impl is None for module in pipeline.family.denoiser.modules())


def test_another_kernel_for_attention(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def spy(*args: Any, **more: Any) -> Any:
        used.append("math" if torch.backends.cuda.math_sdp_enabled() and not torch.backends.cuda.flash_sdp_enabled() else "any")
        return sdpa(*args, **more)

    pipeline, job = loaded(models, "tiny-z-image", AccelerationSettings(attention="math")), models.job("tiny-z-image")
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    (made,) = pictures(StepEngine(pipeline, max_images=2), job)
    # the text encoder's attention is its own library's
    assert used.count("math") == job.recipe.steps * _attentions(pipeline)
    used.clear()
    (plain,) = pictures(models.engine("tiny-z-image"), job)
    assert "math" not in used, "the choice of one model became that of another"
    assert psnr(made, plain) > 60
    assert pipeline.facts["acceleration"] == {"attention": "math"}


def _attentions(pipeline: LoadedPipeline) -> int:
    return sum(hasattr(getattr(part, "processor", None), "_attention_backend") for part in pipeline.family.denoiser.modules())


def test_a_unet_says_that_it_takes_no_other_kernel(models: SmallModels) -> None:
    pipeline = loaded(models, "tiny-sd15", AccelerationSettings(attention="math"))
    assert pipeline.facts["acceleration"] == {"attention": "PyTorch's own: UNet2DConditionModel takes no other"}


@pytest.mark.parametrize("model", ["tiny-z-image", "tiny-sd15"])
def test_a_channels_last_decoder_draws_the_same(models: SmallModels, model: str) -> None:
    pipeline, job = loaded(models, model, AccelerationSettings(channels_last=True)), models.job(model, count=2)
    assert pipeline.family.vae.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    made = pictures(StepEngine(pipeline, max_images=2), job)
    for mine, plain in zip(made, pictures(StepEngine(models.pipeline(model), max_images=2), job), strict=True):
        assert psnr(mine, plain) > 60
    assert pipeline.facts["acceleration"] == {"decoder_layout": "channels-last"}


def test_an_isolated_retry_is_taken_without_any_of_it(models: SmallModels, compiled_graphs: list[int]) -> None:
    pipeline = loaded(models, "tiny-z-image", AccelerationSettings(attention="math", compiled=True))
    warm_up(pipeline)
    block = next(part for part in pipeline.family.denoiser.modules() if part._compiled_call_impl is not None)
    seen: list[tuple[bool, str]] = []

    def look(module: Any, *_: Any) -> None:
        # compiled code does not run this hook's Python again after tracing it, so the stance is recorded
        seen.append(
            (torch._dynamo.eval_frame._stance.stance == "force_eager", module.attention.processor._attention_backend.value)
        )

    engine = StepEngine(pipeline, max_images=2)
    job = models.job("tiny-z-image", steps=2)
    engine.add(job)
    engine.step()
    (slot,) = engine._slots()
    slot.sample.finite_check = slot.sample.finite_check * float("nan")
    engine.step()
    assert slot.isolated
    handle = block.register_forward_pre_hook(look)
    ended = finish(engine)[job.id]
    handle.remove()
    assert isinstance(ended, RenderedJob), ended
    assert seen == [(True, "native")] * 2
    assert block.attention.processor._attention_backend.value == KERNELS["math"].name, "put back"
    assert np.array_equal(ended.images[0].pixels, pictures(models.engine("tiny-z-image"), job)[0])


@pytest.mark.parametrize(
    ("wanted", "device", "says"),
    [
        (
            AccelerationSettings(attention="cudnn"),
            CPU,
            "attention = cudnn needs a GPU, and this worker renders on cpu; use auto, native, math",
        ),
        (AccelerationSettings(attention="flash-varlen"), CUDA, "attention = flash-varlen needs the package flash_attn"),
        (AccelerationSettings(compiled=True), torch.device("mps"), "torch_compile needs a GPU or a CPU"),
    ],
)
def test_what_cannot_be_had_is_refused_at_the_start(wanted: AccelerationSettings, device: torch.device, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        wanted.check(device)


def test_a_machine_without_a_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigurationError, match=r"torch_compile needs a C\+\+ compiler on a CPU; install one"):
        AccelerationSettings(compiled=True).check(CPU)


def test_settings_decide_and_nothing_is_on_unless_asked(models: SmallModels) -> None:
    assert AccelerationSettings.of(load_settings()) == AccelerationSettings()
    assert AccelerationSettings.of(
        load_settings(attention="math", torch_compile=True, vae_channels_last=True)
    ) == AccelerationSettings("math", True, True)
    with pytest.raises(ConfigurationError, match="setting attention"):
        load_settings(attention="flash_hub")
    family = models.pipeline("demo").family
    assert Acceleration(family.denoiser, family.vae, AccelerationSettings(), Tier.RESIDENT).facts == {}
