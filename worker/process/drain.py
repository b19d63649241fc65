"""Draining: claim nothing more, finish what is short, give the rest back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

MAX_DRAIN_S = 20.0
"""After SIGTERM, what would take longer than this is given back instead of finished."""
LEAVE_AFTER_S = 3.0
"""A child that was told to end and drained, but whose parent does not end it, ends itself after this."""


class Drain:
    """Whether this process shall end. SIGTERM asks for it: in a slice it begins a drain, between slices it ends the process."""

    def __init__(self) -> None:
        self.since: float | None = None
        self._in_slice = False
        self._before: Any = None

    @property
    def is_requested(self) -> bool:
        return self.since is not None

    def begin(self) -> None:
        if self.since is None:
            self.since = time.monotonic()

    def seconds_left(self) -> float:
        """Time left for what runs; only meaningful when `is_requested`."""
        return MAX_DRAIN_S - (time.monotonic() - (self.since or 0.0))

    @contextmanager
    def slice(self) -> Iterator[None]:
        """Around one slice, in the main thread: SIGTERM within it drains."""
        if self._before is None:
            # not when the process starts: the pool sets its own handler after that
            self._before = signal.signal(signal.SIGTERM, self._on_sigterm)
        self._in_slice = True
        try:
            yield
        finally:
            self._in_slice = False
            if self.is_requested:
                leave = threading.Timer(LEAVE_AFTER_S, os.kill, (os.getpid(), signal.SIGTERM))
                leave.daemon = True
                leave.start()

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if self._in_slice:
            self.begin()
        elif callable(self._before):
            self._before(number, frame)
