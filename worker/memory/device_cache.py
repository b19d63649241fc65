"""The allocator's cache on the device, which keeps the memory of freed tensors."""

from __future__ import annotations

import torch

from worker.memory.gc_control import collect_frozen


def free_cached(device: torch.device) -> None:
    """Return cached memory that no tensor uses to the device."""
    collect_frozen()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
