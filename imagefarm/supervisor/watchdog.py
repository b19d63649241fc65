"""Ends all services when the supervisor itself is killed.

A small process holds the read end of a pipe whose write end only the supervisor has. The supervisor writes each process group
that it starts (`+123`) and each that has ended (`-123`). When the pipe closes for any reason, the process kills the groups that
have not ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


class Watchdog:
    """The supervisor's side. Start it before the first child, and add every process group."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._lock = threading.Lock()
        self._process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        # isolated and without site, so that it takes 8 MB and starts in milliseconds; its own group, so that Ctrl-C does not
        # reach it
        command = [sys.executable, "-I", "-S", __file__]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0)

    @property
    def pid(self) -> int:
        return self._process.pid

    def add(self, group: int) -> None:
        """Add a process group, which is killed if the supervisor dies."""
        with self._lock:
            self._groups.add(group)
            self._send(f"+{group}\n")

    def remove(self, group: int) -> None:
        """Remove a process group that has ended."""
        with self._lock:
            self._groups.discard(group)
            self._send(f"-{group}\n")

    def close(self) -> None:
        """End the watchdog. It kills the groups that were not removed."""
        with self._lock:
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process.wait(timeout=10)

    def _send(self, line: str) -> None:
        for _ in range(2):
            pipe = self._process.stdin
            try:
                if pipe is not None:
                    pipe.write(line.encode())
                    pipe.flush()
                return
            except BrokenPipeError:  # the watchdog was killed: start another one with the whole list
                self._process.wait()
                self._process = self._spawn()
                line = "".join(f"+{group}\n" for group in sorted(self._groups))


def guard() -> None:
    """The watchdog process: reads until the pipe closes, then kills the groups that are left."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:  # it has ended
            continue


if __name__ == "__main__":
    guard()
