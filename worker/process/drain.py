"""Draining: the worker claims no further jobs, finishes those that end soon, and requeues the rest."""

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
"""Time after SIGTERM in which jobs may finish, in seconds. Jobs that would take longer are requeued."""
LEAVE_AFTER_S = 3.0
"""A drained child that its parent does not end sends SIGTERM to itself after this time, in seconds."""


class Drain:
    """Whether this process must end. SIGTERM during a slice begins a drain; SIGTERM between slices ends the process."""

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
        """Time left for the running jobs, in seconds; only meaningful when `is_requested`."""
        return MAX_DRAIN_S - (time.monotonic() - (self.since or 0.0))

    @contextmanager
    def slice(self) -> Iterator[None]:
        """Context of one slice, in the main thread: SIGTERM within it drains."""
        if self._before is None:
            # not at process start, because the pool sets its own handler after that
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
