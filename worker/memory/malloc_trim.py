"""Memory that was freed, given back to the system: the C library keeps what a peak took for another, which may never come."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable

EVERY_S, EVERY_S_BUSY = 10.0, 60.0
"""At most so often, and while there is work: what is given back must be fetched again, page by page."""


class HeapTrimmer:
    """This process's own memory."""

    def __init__(self) -> None:
        self._used = True
        self._trimmed_at = 0.0

    def note_allocation(self) -> None:
        """Something was made: there may be something to give back."""
        self._used = True

    def trim_if_due(self, *, busy: bool) -> bool:
        """Give back what is free, unless nothing was made since, or that was done just now; return whether it was done.
        Takes milliseconds, from any thread.
        """
        trim, now = _trim(), time.monotonic()
        if trim is None or not self._used or now - self._trimmed_at < (EVERY_S_BUSY if busy else EVERY_S):
            return False
        self._used, self._trimmed_at = busy, now
        trim(0)
        return True


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """glibc's; other C libraries have none and need none."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
