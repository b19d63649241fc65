"""Memory limit of a worker's child. The child is killed at the limit, before the kernel kills another process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

import psutil

from imagefarm.logs import get_logger

log = get_logger(__name__)

LOOK_EVERY_S = 0.2
GIB = 2**30


def own_bytes(pid: int) -> int:
    """Main memory that only this process uses. Weights mapped from files do not count: the kernel may drop them."""
    memory = psutil.Process(pid).memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


class MemoryLimit:
    """A thread of the parent that checks the child's memory. The kernel's RLIMIT_AS would also count what CUDA only reserves."""

    def __init__(self, max_bytes: int, children: Callable[[], list[int]]) -> None:
        self.max_bytes = max_bytes
        self.children = children
        self.ended: dict[int, str] = {}
        """By pid: the reason for which the child was killed."""
        self._stop = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="memory", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def look(self) -> None:
        """Kill every child that uses too much memory."""
        for pid in self.children():
            with suppress(psutil.Error, ProcessLookupError):
                held = own_bytes(pid)
                if held > self.max_bytes and pid not in self.ended:
                    self.ended[pid] = (
                        f"it took {held / GIB:.1f} GiB of memory, more than worker_memory_limit_gib = {self.max_bytes / GIB:g}, "
                        "and its process was killed"
                    )
                    log.critical("worker.memory", pid=pid, bytes=held, max_bytes=self.max_bytes)
                    os.kill(pid, signal.SIGKILL)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            self.look()
