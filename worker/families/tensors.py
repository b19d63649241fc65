"""Tensor helpers of the families: copies to the device, pixels to tensors, a temporary change of dtype."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy from the host without waiting for the work that is queued on the device; a plain copy to CUDA would wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def signed(image: NDArray[np.uint8]) -> torch.Tensor:
    """(H, W, 3) RGB -> (1, 3, H, W) in -1..1, in the memory layout that diffusers uses. The layout affects the last bits."""
    return torch.from_numpy(image[None].astype(np.float32) / 255.0).permute(0, 3, 1, 2) * 2.0 - 1.0


@contextmanager
def cast_to(module: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Run `module` at `dtype` for a while. Widening and narrowing back restores every weight exactly."""
    tensors = [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]
    before = [(tensor, tensor.dtype) for tensor in tensors if tensor.dtype != dtype]
    with torch.inference_mode(False):  # a weight created in inference mode could not be assigned
        try:
            for tensor, _ in before:
                tensor.data = tensor.data.to(dtype)
            with torch.inference_mode():
                yield
        finally:
            for tensor, narrow in before:
                tensor.data = tensor.data.to(narrow)
