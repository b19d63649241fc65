"""How much memory a pass took at its peak, on each kind of device."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch

CLEAR = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
RESET_PEAK = "5"
"""What Linux wants to be told to forget the highest resident size so far."""


class PeakMemoryMeter(Protocol):
    """Measures one pass at a time."""

    bounds: bool
    """Whether its numbers are exact enough to say how many images fit."""

    def begin(self) -> None:
        """The pass begins."""

    def peak(self) -> int | None:
        """Bytes at its peak besides what was there at its beginning, or None where that cannot be known. Never waits for the
        device: allocators keep their books on the host."""


class CudaMeter:
    """The allocator's own books; ROCm's are the same."""

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
    """The process's resident size on Linux. Other threads and memory that was freed but kept blur it: told, not relied on."""

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
            self._works = False  # a sandbox that forbids it

    def peak(self) -> int | None:
        return max(0, _kib("VmHWM:") - self._before) * 1024 if self._works else None


def meter_for(device: torch.device) -> PeakMemoryMeter:
    """The meter of a device; MPS has no peak to ask for, so that its passes are bounded by what runs out only."""
    return CudaMeter(device) if device.type == "cuda" else ResidentSizeMeter()


def headroom(device: torch.device) -> int | None:
    """Bytes that passes may take beside what lies on the device now; None where nobody knows."""
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
