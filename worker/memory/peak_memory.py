"""Peak memory of a pass, on each kind of device."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch

CLEAR = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
RESET_PEAK = "5"
"""The value that resets the process's highest resident size in Linux's clear_refs."""


class PeakMemoryMeter(Protocol):
    """Measures one pass at a time."""

    bounds: bool
    """Whether the numbers are exact enough to bound the number of images."""

    def begin(self) -> None:
        """Start measuring a pass."""

    def peak(self) -> int | None:
        """Peak bytes of the pass beyond its start, or None where that cannot be known. Never waits for the device, because
        allocators keep their statistics on the host."""


class CudaMeter:
    """CUDA allocator statistics; ROCm has the same."""

    bounds = True

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = 0

    def begin(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)
        self._before = torch.cuda.memory_allocated(self.device)

    def peak(self) -> int | None:
        return max(0, int(torch.cuda.max_memory_allocated(self.device)) - self._before)


class ResidentSizeMeter:
    """The resident size of the process on Linux. Other threads and cached memory blur it, so it is reported but bounds
    nothing."""

    bounds = False

    def __init__(self) -> None:
        self._before = 0
        self._works = STATUS.is_file()

    def begin(self) -> None:
        if not self._works:
            return
        try:
            CLEAR.write_text(RESET_PEAK)
            self._before = _kib("VmRSS:")
        except OSError:
            self._works = False  # some sandboxes forbid writing clear_refs

    def peak(self) -> int | None:
        return max(0, _kib("VmHWM:") - self._before) * 1024 if self._works else None


def meter_for(device: torch.device) -> PeakMemoryMeter:
    """The meter of a device. MPS reports no peak, so its passes are bounded only by out-of-memory errors."""
    return CudaMeter(device) if device.type == "cuda" else ResidentSizeMeter()


def headroom(device: torch.device) -> int | None:
    """Bytes that passes may take beyond what is on the device now; None where that is unknown."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(0.95 * (free + cached))


def _kib(name: str) -> int:
    with suppress(OSError, ValueError, StopIteration):
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1])
    return 0
