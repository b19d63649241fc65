"""Inpainting for models without a mask input: the unmasked part is restored after every step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from worker.families.tensors import to_device


@dataclass(frozen=True, slots=True, repr=False)
class InpaintState:
    """The part of an image that inpainting keeps unchanged."""

    latents: torch.Tensor
    """Latents of the whole input image, without noise."""
    noise: torch.Tensor
    """The noise that the image started with. The kept part gets as much of it as the current step requires."""
    repaint: torch.Tensor
    """(1, 1, h, w): 1 where the image is repainted, 0 where it is kept."""

    def blend(self, latents: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """`latents` where the image is repainted, `known` where it is kept."""
        return (1 - self.repaint) * known + self.repaint * latents


def latent_mask(mask: NDArray[np.uint8], like: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Convert a pixel mask (height, width) to a binary latent mask with the shape and dtype of `like`."""
    whole = torch.from_numpy((mask >= 128).astype(np.float32))[None, None]
    small = torch.nn.functional.interpolate(whole, like.shape[-2:], mode="nearest")
    return to_device(small, device).to(like.dtype)
