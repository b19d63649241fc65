"""Memory that was freed, given back to the system: the C library keeps what a peak took for another, which may never come."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable

EVERY_S = 10.0
"""At most so often: what is given back must be fetched again, page by page."""


class Heap:
    """This process's own memory."""

    def __init__(self) -> None:
        self._given_at = 0.0

    def give_back(self) -> bool:
        """Give back what is free, unless that was done just now; return whether it was done. Takes milliseconds."""
        trim, now = _trim(), time.monotonic()
        if trim is None or now - self._given_at < EVERY_S:
            return False
        self._given_at = now
        trim(0)
        return True


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """glibc's; other C libraries have none and need none."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
