"""Inpainting as the pipelines of models without a mask of their own do it: what is kept is put back after every step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from worker.families.tensors import to_device


@dataclass(frozen=True, slots=True, repr=False)
class InpaintState:
    """What of a picture stays as it is."""

    latents: torch.Tensor
    """The whole picture's, without noise."""
    noise: torch.Tensor
    """The noise that the image began with: what is kept gets as much of it as the step has left."""
    repaint: torch.Tensor
    """(1, 1, h, w): 1 where the image is painted anew, 0 where it is kept."""

    def blend(self, latents: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """`latents` where the image is painted anew, `known` where it is kept."""
        return (1 - self.repaint) * known + self.repaint * latents


def latent_mask(mask: NDArray[np.uint8], like: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A mask (height, width) of pixels as one of latents, all or nothing, of the shape and dtype of `like`."""
    whole = torch.from_numpy((mask >= 128).astype(np.float32))[None, None]
    small = torch.nn.functional.interpolate(whole, like.shape[-2:], mode="nearest")
    return to_device(small, device).to(like.dtype)
