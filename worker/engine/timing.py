"""Device time without waiting for the device: CUDA events that are read later, the host's clock on other devices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class DeviceTimer:
    """One timed interval of device work."""

    def __init__(self, device: torch.device) -> None:
        self._events = (
            (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) if device.type == "cuda" else None
        )
        self._seconds: float | None = None
        self._started = self._cpu_started = 0.0
        self.host_s = 0.0
        """CPU seconds of this thread: all of the work on a CPU device, otherwise only the time to queue it."""

    def start(self) -> None:
        self._cpu_started = time.thread_time()
        if self._events:
            self._events[0].record()
        else:
            self._started = time.perf_counter()

    def stop(self) -> None:
        self.host_s = time.thread_time() - self._cpu_started
        if self._events:
            self._events[1].record()
        else:
            self._seconds = time.perf_counter() - self._started

    def wait(self) -> None:
        """Block until the timed work is done."""
        if self._events:
            self._events[1].synchronize()

    @property
    def seconds(self) -> float:
        """Device seconds. Waits for the work to end, so read it after the image has been copied."""
        if self._seconds is None and self._events:
            self.wait()
            self._seconds = self._events[0].elapsed_time(self._events[1]) / 1000
        return self._seconds or 0.0


@contextmanager
def timed(device: torch.device) -> Iterator[DeviceTimer]:
    """Time the device work queued in the body."""
    timer = DeviceTimer(device)
    timer.start()
    try:
        yield timer
    finally:
        timer.stop()
