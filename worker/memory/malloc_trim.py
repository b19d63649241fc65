"""Return freed memory to the system. The C library keeps the memory of a peak for the next one, which may never come."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable

EVERY_S, EVERY_S_BUSY = 10.0, 60.0
"""Shortest interval between two trims, in seconds, idle or busy. Trimmed memory must be faulted in again page by page."""


class HeapTrimmer:
    """Trims the heap of this process."""

    def __init__(self) -> None:
        self._used = True
        self._trimmed_at = 0.0

    def note_allocation(self) -> None:
        """Record that memory was used, so that there may be something to trim."""
        self._used = True

    def trim_if_due(self, *, busy: bool) -> bool:
        """Trim unless nothing was allocated since the last trim, or that was just now; return whether it trimmed.
        Takes milliseconds. Any thread may call it.
        """
        trim, now = _trim(), time.monotonic()
        if trim is None or not self._used or now - self._trimmed_at < (EVERY_S_BUSY if busy else EVERY_S):
            return False
        self._used, self._trimmed_at = busy, now
        trim(0)
        return True


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """glibc's malloc_trim; other C libraries have none and need none."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
