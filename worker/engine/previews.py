"""Previews: small pictures of images in the making, for jobs that ask. One small convolution in place of the decoder.

A latent is, near enough, a colour: three by three of them give one, far cheaper than decoding. The convolution is fitted
once for each pipeline to what its own encoder makes of charts of colours, so that any decoder has previews and none needs a
table of numbers. The rest is asynchronous: the small picture travels to the host while the next step runs, and is taken at
a later one. Jobs that do not ask cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from imagefarm.logs import get_logger
from worker.engine.results import Preview
from worker.engine.running_set import Slot
from worker.families.base import Family
from worker.families.tensors import signed, to_device

log = get_logger(__name__)

IMAGES = 4
"""Images of one job that are shown, the first ones."""
LOOKS = 10
"""Previews of one image, about."""
MAX_SIDE = 128
"""Pixels: a latent of 1024 pixels has as many."""
CHARTS, CHART_SIDE, CHUNK_SIZE = 64, 64, 16
REACH = 3
"""A latent's neighbours tell of its colour too: with them the pictures are 4 to 6 dB closer than without."""
RIDGE = 1e-3


@dataclass(slots=True)
class _OnTheWay:
    """A preview that may still be travelling from the device."""

    job_id: str
    index: int
    step: int
    pixels: torch.Tensor
    arrived: torch.cuda.Event | None


class Previews:
    """Takes looks at the running set's images."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._colours: torch.Tensor | None = None
        self._broken = False
        self._on_the_way: list[_OnTheWay] = []

    def look(self, slot: Slot, prediction: torch.Tensor) -> None:
        """Look at an image before it takes the step that was predicted, if its job asked and it is time. Never raises."""
        sample = slot.sample
        if not slot.job.job.preview or slot.index >= IMAGES or slot.isolated or self._broken:
            return
        if sample.step % max(1, sample.steps // LOOKS) or sample.step == sample.steps - 1:
            return  # after the last step the picture itself comes
        try:
            self._begin(slot, prediction)
        except Exception:
            # a job is not worse for want of its preview
            self._broken = True
            log.warning("previews failed; there are none until the model is loaded again", exc_info=True)

    def take(self) -> dict[str, list[Preview]]:
        """The previews that have arrived since the last call, by job."""
        arrived: dict[str, list[Preview]] = {}
        waiting = []
        for one in self._on_the_way:
            if one.arrived is not None and not one.arrived.query():
                waiting.append(one)
                continue
            arrived.setdefault(one.job_id, []).append(Preview(one.index, one.step, one.pixels.numpy()))
        self._on_the_way = waiting
        return arrived

    @torch.inference_mode()
    def _begin(self, slot: Slot, prediction: torch.Tensor) -> None:
        if self._colours is None:
            self._colours = fit_colours(self._family)
        sample = slot.sample
        latents = self._family.estimate(sample, prediction).float()
        colours = torch.nn.functional.conv2d(_with_ones(latents), self._colours)[0].permute(1, 2, 0)
        every = max(1, -(-max(latents.shape[-2:]) // MAX_SIDE))
        pixels = (colours[::every, ::every].clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
        arrived = None
        if pixels.is_cuda:
            host = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
            host.copy_(pixels, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            pixels = host
        self._on_the_way.append(_OnTheWay(slot.job.job.id, slot.index, sample.step + 1, pixels, arrived))


@torch.inference_mode()
def fit_colours(family: Family) -> torch.Tensor:
    """(3, channels + 1, REACH, REACH): a convolution from latents, and a channel of ones, to red, green and blue in 0..1."""
    charts = torch.cat([signed(chart) for chart in colour_charts()])
    latents = [family.encode_image(to_device(some, family.device)).float().cpu() for some in charts.split(CHUNK_SIZE)]
    known = _with_ones(torch.cat(latents))
    around = torch.nn.functional.unfold(known, REACH).permute(0, 2, 1).flatten(0, 1).double()
    colours = torch.nn.functional.interpolate((charts + 1) / 2, latents[0].shape[-2:], mode="area")
    # a little ridge: what says nothing of colour must not be given large numbers
    gram = around.T @ around + RIDGE * len(around) * torch.eye(around.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, around.T @ colours.permute(0, 2, 3, 1).flatten(0, 2).double())
    return to_device(weights.float().T.reshape(3, known.shape[1], REACH, REACH).contiguous(), family.device)


def _with_ones(latents: torch.Tensor) -> torch.Tensor:
    """Latents (B, C, h, w) with a channel of ones for what is added, and their edges repeated for the convolution's reach."""
    ones = torch.ones_like(latents[:, :1])
    return torch.nn.functional.pad(torch.cat([latents, ones], dim=1), (REACH // 2,) * 4, mode="replicate")


def colour_charts() -> list[NDArray[np.uint8]]:
    """Small pictures of coloured shapes on plain grounds, always the same: as near to products as random ones come."""
    random = np.random.default_rng(1)
    charts = []
    for number in range(CHARTS):
        ground = random.integers(0, 256, 3) if number % 2 else np.full(3, random.integers(200, 256))
        chart = np.full((CHART_SIDE, CHART_SIDE, 3), ground, np.uint8)
        for _ in range(2 ** (number // 2 % 4)):
            x, y = random.integers(0, CHART_SIDE, 2)
            width, height = random.integers(CHART_SIDE // 8, CHART_SIDE // 2, 2)
            chart[y : y + height, x : x + width] = random.integers(0, 256, 3)
        if number % 4 > 1:
            chart = np.asarray(Image.fromarray(chart).filter(ImageFilter.GaussianBlur(1.5)))
        charts.append(chart)
    return charts
