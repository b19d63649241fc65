"""The device that a worker renders on, and the dtype of its models."""

from __future__ import annotations

import torch

from imagefarm.errors import ConfigurationError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def find_device(name: str) -> torch.device:
    """Find a device: `auto` is CUDA (or ROCm), else MPS, else the CPU. Raises ConfigurationError for a missing device."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ConfigurationError(f"device {name} is not on this machine; use device = auto")
    return device


def pick_dtype(wanted: str, device: torch.device, half: torch.dtype) -> torch.dtype:
    """The dtype that a model runs at. `wanted` is the catalogue's; `half` is the family's 16-bit dtype, used for `auto`.

    The CPU computes in float32, whatever dtype the weights are stored in: 16 bits are slower there and less exact. A card without
    bfloat16 uses float32 instead, never float16, which overflows in models made for bfloat16.
    """
    dtype = half if wanted == "auto" else DTYPES[wanted]
    if device.type == "cpu":
        return torch.float32
    if dtype is torch.bfloat16 and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float32
    return dtype
