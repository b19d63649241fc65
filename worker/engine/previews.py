"""Previews: small images of samples in progress, for jobs that ask for them.

One latent is roughly one colour, so a small convolution over 3x3 latents replaces the decoder at a fraction of its cost. The
convolution is fitted once per pipeline to what the pipeline's own encoder makes of colour charts. It therefore works for any
VAE and needs no table of coefficients. The preview is copied to the host while the next step runs and collected at a later
step. Jobs that do not ask for previews pay nothing.
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
"""Only the first images of a job have previews."""
LOOKS = 10
"""About how many previews one image gets."""
MAX_SIDE = 128
"""Longest side of a preview in pixels: as many as a 1024-pixel image has latents."""
CHARTS, CHART_SIDE, CHUNK_SIZE = 64, 64, 16
REACH = 3
"""Neighbouring latents add information about the colour: with them, previews are 4 to 6 dB closer to the image."""
RIDGE = 1e-3


@dataclass(slots=True)
class _OnTheWay:
    """A preview whose copy from the device may still be running."""

    job_id: str
    index: int
    step: int
    pixels: torch.Tensor
    arrived: torch.cuda.Event | None


class Previews:
    """Takes previews of the running set's images."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._colours: torch.Tensor | None = None
        self._broken = False
        self._on_the_way: list[_OnTheWay] = []

    def look(self, slot: Slot, prediction: torch.Tensor) -> None:
        """Take a preview of an image before it takes the predicted step, if its job asked for one and it is due. Never raises."""
        sample = slot.sample
        if not slot.job.job.preview or slot.index >= IMAGES or slot.isolated or self._broken:
            return
        if sample.step % max(1, sample.steps // LOOKS) or sample.step == sample.steps - 1:
            return  # after the last step the image itself follows
        try:
            self._begin(slot, prediction)
        except Exception:
            # a failed preview does not harm the job
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
    """(3, channels + 1, REACH, REACH): a convolution from latents (and a channel of ones) to red, green and blue in 0..1."""
    charts = torch.cat([signed(chart) for chart in colour_charts()])
    latents = [family.encode_image(to_device(some, family.device)).float().cpu() for some in charts.split(CHUNK_SIZE)]
    known = _with_ones(torch.cat(latents))
    around = torch.nn.functional.unfold(known, REACH).permute(0, 2, 1).flatten(0, 1).double()
    colours = torch.nn.functional.interpolate((charts + 1) / 2, latents[0].shape[-2:], mode="area")
    # a small ridge term keeps the weights of uninformative channels small
    gram = around.T @ around + RIDGE * len(around) * torch.eye(around.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, around.T @ colours.permute(0, 2, 3, 1).flatten(0, 2).double())
    return to_device(weights.float().T.reshape(3, known.shape[1], REACH, REACH).contiguous(), family.device)


def _with_ones(latents: torch.Tensor) -> torch.Tensor:
    """Latents (B, C, h, w) with a channel of ones for the bias, and edges repeated for the convolution's reach."""
    ones = torch.ones_like(latents[:, :1])
    return torch.nn.functional.pad(torch.cat([latents, ones], dim=1), (REACH // 2,) * 4, mode="replicate")


def colour_charts() -> list[NDArray[np.uint8]]:
    """Colour charts: small images of coloured shapes on plain grounds, always the same, roughly like product images."""
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
