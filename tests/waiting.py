"""Waiting for what a test needs to have happened: looked at often, given up late."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], what: str, timeout_s: float = 30.0) -> T:
    """Return `look()` as soon as it is true; fail naming `what` was waited for."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.02)
    return seen
