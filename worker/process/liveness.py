"""A liveness counter with which the parent detects that the child's interpreter has stopped.

A thread of the child watches its deadlines (see worker.leases.lease_keeper). Native code that hangs while it holds the GIL stops
every thread of the child, including that one: the leases expire, and the child keeps its device. Therefore another thread of the
child increments a counter in memory shared with the parent, and the parent kills a child whose counter has stopped.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from imagefarm.logs import get_logger

log = get_logger(__name__)

LIVENESS_FILE = "FARM_WORKER_LIVENESS"
"""Environment variable in which the parent passes the name of the shared memory file to its next child."""
COUNT_INTERVAL_S = 0.5
CHECK_INTERVAL_S = 1.0
STALL_TIMEOUT_S = 20.0
"""The child is hung if its counter stops for this time, in seconds. Shorter than a lease, so that this failure is reported first.
No torch operation holds the GIL while it computes, however long that takes.
"""
LOAD_STALL_TIMEOUT_S = 300.0
"""Stall timeout while the child starts or loads a model, in seconds: reading from a cold disk may hold the GIL."""
PHASES = ("starting", "idle", "loading", "finishing", "step")
SLOW_PHASES = ("starting", "loading")
_COUNT, _PHASE = struct.Struct("<Q"), 8
SIZE = _PHASE + 1


class LivenessCounter:
    """In the child: increments the counter and publishes the phase of the render thread."""

    def __init__(self, path: str | None) -> None:
        """`path` is the file named by the parent; None: the child is not monitored."""
        self._page: mmap.mmap | None = None
        self._count = 0
        if path:
            try:
                with Path(path).open("r+b") as file:
                    self._page = mmap.mmap(file.fileno(), SIZE)
                Path(path).unlink()  # both processes have it open, so no file is left behind
            except OSError as error:
                log.warning("worker.unmonitored", error=str(error))

    def start(self) -> None:
        threading.Thread(target=self._run, name="liveness", daemon=True).start()

    def count(self) -> None:
        """Increment the counter."""
        if self._page is not None:
            self._count += 1
            self._page[: _COUNT.size] = _COUNT.pack(self._count)

    def set_phase(self, phase: str) -> None:
        """Publish the current phase of the render thread."""
        if self._page is not None:
            self._page[_PHASE] = PHASES.index(phase)

    def _run(self) -> None:
        while True:
            self.count()
            time.sleep(COUNT_INTERVAL_S)


class LivenessMonitor:
    """In the parent: a thread that kills the child when its counter has stopped.

    A child that has not begun to count is not judged; Celery's own limit (worker_proc_alive_timeout) ends a child that cannot
    start. Time in which this process was paused itself, as on a suspended machine, does not count.
    """

    def __init__(self) -> None:
        self.children: Callable[[], list[int]] = list
        """Returns the pids of the pool's processes; the pool has one."""
        self.ended: dict[int, tuple[str, bool]] = {}
        """By pid of a killed child: the reason, and whether a step, and therefore a job, is to blame."""
        self.stalled_s = 0.0
        self._page: mmap.mmap | None = None
        self._path = ""
        self._seen: tuple[mmap.mmap | None, int] = None, 0
        self._checked_at = time.monotonic()
        self._stop = threading.Event()

    def child_starts(self) -> None:
        """Create the shared memory of the next child, and pass its file name in the environment."""
        if self._path:
            Path(self._path).unlink(missing_ok=True)  # left by a child that died before it opened the file
        self._page, self._path = None, ""
        os.environ.pop(LIVENESS_FILE, None)
        try:
            file, self._path = tempfile.mkstemp(prefix="imagefarm-child-")
            try:
                os.write(file, bytes(SIZE))  # allocated now: on a full disk the first count would kill the child
                self._page = mmap.mmap(file, SIZE)
            finally:
                os.close(file)
        except OSError as error:  # an unmonitored child is better than none
            log.warning("worker.unmonitored", error=str(error))
            return
        os.environ[LIVENESS_FILE] = self._path

    def start(self) -> None:
        threading.Thread(target=self._run, name="liveness-monitor", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def check(self) -> None:
        """Kill the child if its counter has stopped for too long."""
        now = time.monotonic()
        since, self._checked_at = min(now - self._checked_at, 2 * CHECK_INTERVAL_S), now
        page = self._page
        if page is None:
            return
        (count,) = _COUNT.unpack(page[: _COUNT.size])
        if count == 0 or (page, count) != self._seen:
            self._seen, self.stalled_s = (page, count), 0.0
            return
        self.stalled_s += since
        phase = PHASES[page[_PHASE]]
        if self.stalled_s <= (LOAD_STALL_TIMEOUT_S if phase in SLOW_PHASES else STALL_TIMEOUT_S):
            return
        for pid in self.children():
            if pid in self.ended or page is not self._page:
                continue
            reason = f"hung: its liveness counter stopped for {self.stalled_s:.0f} s ({phase}), and its process was killed"
            self.ended[pid] = reason, phase == "step"
            log.critical("worker.stalled", pid=pid, phase=phase, stalled_s=round(self.stalled_s, 1))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _run(self) -> None:
        while not self._stop.wait(CHECK_INTERVAL_S):
            self.check()
