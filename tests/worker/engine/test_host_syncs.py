"""Inside a step nothing waits for the device: a wait would leave a GPU idle until the host has the next step ready.

There need be no GPU to see it. Tensors that would be on one are followed from the model's weights and the images' latents
through every operation; one whose result the host would need (`.item()`, a branch on a tensor, an index by a mask, a copy to
the host) is an error. Values that are on the host on purpose, such as timesteps and sigmas, may be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from tests.worker.model_jobs import SmallModels
from worker.engine.engine import StepEngine
from worker.inputs.input_images import Inputs

ATEN = torch.ops.aten
WAITS = {
    ATEN._local_scalar_dense.default,
    ATEN.nonzero.default,
    ATEN.masked_select.default,
    ATEN.equal.default,
    ATEN.is_nonzero.default,
    ATEN._unique2.default,
    ATEN.repeat_interleave.Tensor,
}
INDEXING = {ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default, ATEN._index_put_impl_.default}
TO_HOST = {torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__}


PHOTO = "asset_" + "0" * 26


class Waited(AssertionError):
    """The host waited for the device."""


class OnDevice:
    """The tensors that would be on the device."""

    def __init__(self, roots: Iterable[torch.Tensor]) -> None:
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.add(roots)

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            self._known[tensor] = True

    def any(self, *arguments: Any) -> bool:
        return any(isinstance(leaf, torch.Tensor) and leaf in self._known for leaf in tree_leaves(arguments))


class FollowOperations(TorchDispatchMode):
    def __init__(self, device: OnDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        on_device = self.device.any(args, kwargs)
        if on_device:
            by_mask = func in INDEXING and any(
                isinstance(leaf, torch.Tensor) and leaf.dtype in (torch.bool, torch.uint8) for leaf in tree_leaves(args[1])
            )
            to_host = func is ATEN.copy_.default and not self.device.any(args[0])
            if func in WAITS or by_mask or to_host:
                raise Waited(str(func))
        out = func(*args, **(kwargs or {}))
        if on_device:
            self.device.add(leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))
        return out


class FollowReads(TorchFunctionMode):
    """Detects reads of a tensor's memory that bypass the dispatcher."""

    def __init__(self, device: OnDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in TO_HOST and self.device.any(args[0]):
            raise Waited(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def no_waiting(engine: StepEngine) -> Iterator[None]:
    """An error for whatever would make the host wait."""
    roots: list[torch.Tensor] = [*engine.family.denoiser.parameters(), *engine.family.denoiser.buffers()]
    for slot in engine._slots():
        sample = slot.sample
        inpaint = [] if sample.inpaint is None else [sample.inpaint.latents, sample.inpaint.noise, sample.inpaint.repaint]
        prompts = [one for one in (sample.prompt, sample.negative) if one is not None]
        roots += [sample.latents, sample.times, sample.finite_check, *sample.conditions.values(), *inpaint]
        roots += [tensor for one in prompts for tensor in (one.tokens, one.pooled) if tensor is not None]
    device = OnDevice(roots)
    with FollowReads(device), FollowOperations(device):
        yield


CASES = {
    "demo": [{}],
    "tiny-z-image": [{}, {"guidance": 4.0}, {"width": 96, "prompt": "a longer prompt " * 20}],
    "tiny-omni": [{}],
    "tiny-lcm": [{}],
    **{
        f"{model} {sampler} {guidance}": [{"sampler": sampler, "guidance": guidance}] * 2
        for model in ("tiny-sd15", "tiny-sdxl")
        for sampler in ("euler", "euler-ancestral", "dpm++-2m", "ddim")
        for guidance in (0.0, 5.0)
    },
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_for_nothing(models: SmallModels, case: str) -> None:
    model = case.split(maxsplit=1)[0]
    engine = models.engine(model)
    for asked in CASES[case]:
        engine.add(models.job(model, steps=4, **asked))
    engine.step()  # one-time work may wait, such as looking up the start of a schedule
    with no_waiting(engine):
        engine.step()
        engine.step()


def test_nor_with_a_mask(models: SmallModels) -> None:
    engine = models.engine("tiny-z-image")
    job = models.job("tiny-z-image", steps=4, init_image=PHOTO, mask=PHOTO, strength=1.0)
    image, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    mask[16:48] = 255
    engine.add(job, Inputs(image, mask))
    engine.step()
    with no_waiting(engine):
        engine.step()


@pytest.mark.parametrize(
    "wait",
    [
        lambda latents: latents.sum().item(),
        lambda latents: bool((latents > 0).all()),
        lambda latents: latents[latents > 0],
        lambda latents: latents.cpu(),
        lambda latents: latents.flatten().tolist(),
        lambda latents: torch.empty(latents.shape).copy_(latents),
    ],
    ids=["item", "branch", "mask", "cpu", "list", "copy"],
)
def test_a_wait_is_seen(models: SmallModels, monkeypatch: pytest.MonkeyPatch, wait: Any) -> None:
    engine = models.engine("tiny-z-image")
    engine.add(models.job("tiny-z-image", steps=4))
    predict = engine.family.predict

    def waiting(samples: Any) -> Any:
        wait(samples[0].latents * 2)
        return predict(samples)

    monkeypatch.setattr(engine.family, "predict", waiting)
    with no_waiting(engine):
        report = engine.step()
    assert "Waited" in report.failed[0].failure.detail
