"""`imagefarm up` as a user starts it: a process, its one line, and all it started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil

from imagefarm import Client
from imagefarm.settings import PROJECT_ROOT
from imagefarm.store import Store
from tests.waiting import until

COMMAND = (sys.executable, "-m", "imagefarm")
READY = re.compile(r"^imagefarm is ready: (http://127\.0\.0\.1:\d+)  \(data: .*, stop with Ctrl-C\)$")
START_S = 180.0
"""A machine that builds something else at the same time may take this long; alone it is about six seconds."""


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without the farm's own variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEFARM_")}
    return kept | {"PYTHONPATH": str(PROJECT_ROOT), "OMP_NUM_THREADS": "1"} | more


class Up:
    """One run of `imagefarm up` on `data`; `said` is what it wrote, line by line."""

    def __init__(self, data: Path, *options: str, **environment: str) -> None:
        self.data = data
        self.said: list[str] = []
        self.family: set[psutil.Process] = set()
        self.process = subprocess.Popen(
            [*COMMAND, "up", "--port", "0", "--data", str(data), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=data.parent,
            env=clean_environment(IMAGEFARM_WORKER_MODELS='["demo"]', **environment),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))

    def until_ready(self) -> Up:
        """Wait for the ready line."""
        until(lambda: self.url or self.process.poll() is not None, "the ready line", START_S)
        assert self.url, f"imagefarm up ended with {self.process.returncode}: {self.said}"
        self.family |= set(psutil.Process(self.process.pid).children(recursive=True))
        return self

    @property
    def url(self) -> str:
        """From the ready line; empty before."""
        return next((found[1] for line in self.said if (found := READY.match(line))), "")

    def client(self) -> Client:
        return Client(self.url)

    def store(self) -> Store:
        return Store(f"sqlite:///{self.data / 'imagefarm.db'}", pool_size=2)

    def find(self, words: str) -> psutil.Process:
        """The one direct child whose command line has these words."""
        found = [child for child in psutil.Process(self.process.pid).children() if words in " ".join(child.cmdline())]
        assert len(found) == 1, f"{len(found)} processes with {words!r}"
        self.family |= set(psutil.Process(self.process.pid).children(recursive=True))
        return found[0]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.family |= set(psutil.Process(self.process.pid).children(recursive=True))
        self.process.send_signal(number)
        code = self.process.wait(120)
        self._reader.join(10)
        return code

    def left_over(self) -> list[str]:
        """Command lines of what still runs of all that was ever seen of this farm."""
        left = []
        for process in self.family:
            with suppress(psutil.NoSuchProcess):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(" ".join(process.cmdline()))
        return left

    def close(self) -> None:
        """End it, whatever happened."""
        if self.process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                self.family |= set(psutil.Process(self.process.pid).children(recursive=True))
            self.process.kill()
            self.process.wait()
        for process in self.family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
