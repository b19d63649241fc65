"""The allocator's cache on the device: freed tensors leave their memory there until it is emptied."""

from __future__ import annotations

import torch

from worker.memory.gc_control import collect_frozen


def free_cached(device: torch.device) -> None:
    """Give memory that nothing uses back to the device."""
    collect_frozen()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
