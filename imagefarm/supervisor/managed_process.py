"""One supervised process: it is started, its output is kept, it is restarted with backoff, and it is stopped in two steps."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from imagefarm.supervisor.log_file import LogFile, Repeats, as_warning
from imagefarm.supervisor.services import Service
from imagefarm.supervisor.watchdog import Watchdog

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 30.0
HEALTHY_S = 30.0
"""Seconds. After a process has run this long, the backoff starts again at `FIRST_PAUSE_S`."""

Say = Callable[[str], None]
"""Prints one line for the operator."""


class ManagedProcess:
    """A service that is kept running from `start` until `stop`.

    It runs in its own process group. Ctrl-C therefore does not reach it, and its orphaned children can be killed. Its output goes
    to
    `log`, and its warnings also to `say`; without a log it inherits this process's output.
    """

    def __init__(
        self, service: Service, environment: Mapping[str, str], *, watchdog: Watchdog, say: Say, cwd: Path, log: Path | None
    ) -> None:
        self.service = service
        self.name = service.name
        self.starts = 0
        self.last_words = ""
        """The last line of its output."""
        self._environment = dict(environment)
        self._watchdog = watchdog
        self._say = say
        self._cwd = cwd
        self._log = LogFile(log) if log is not None else None
        self._repeats = Repeats()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_running, name=f"process-{self.name}", daemon=True)

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the process and keep it running."""
        self._thread.start()

    def stop(self) -> None:
        """Send SIGTERM and do not restart the process. Returns at once; see `wait` and `kill`."""
        with self._lock:  # not between the decision to start and the start
            self._stopping.set()
            self._signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> bool:
        """Wait until the process has ended; True if it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def kill(self) -> None:
        """Kill the process and its children at once."""
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        self._thread.join(10)

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def _keep_running(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._stopping.is_set():
            began = time.monotonic()
            ending = self._run_once()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > HEALTHY_S:
                pause = FIRST_PAUSE_S
            self._say(f"{self.name} {ending}; starting it again in {pause:g} s{self._where()}")
            self._stopping.wait(pause)
            pause = min(pause * 2, MAX_PAUSE_S)

    def _run_once(self) -> str:
        """Start the process and wait until it ends; return how it ended."""
        with self._lock:
            if self._stopping.is_set():
                return "was stopped before it started"
            try:
                process = self._spawn()
            except OSError as error:
                return f"cannot be started: {error}"
        self._live(process)
        return _how_it_ended(process.returncode)

    def _spawn(self) -> subprocess.Popen[bytes]:
        output = None if self._log is None else subprocess.PIPE
        process = subprocess.Popen(
            self.service.command,
            env=self._environment,
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            process_group=0,
        )
        self._watchdog.add(process.pid)
        self._process = process
        self.starts += 1
        return process

    def _live(self, process: subprocess.Popen[bytes]) -> None:
        reader = threading.Thread(target=self._read, args=(process,), name=f"log-{self.name}", daemon=True)
        reader.start()
        process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # orphaned children would keep its port or its lease
        reader.join(5)
        self._watchdog.remove(process.pid)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is None or self._log is None:
            return
        with process.stdout as pipe:
            for raw in pipe:
                line = raw.decode(errors="replace").rstrip()
                self._log.write(line)
                if line:
                    self.last_words = line.strip()
                warning = as_warning(line)
                if warning is not None and (warning := self._repeats.filter(warning)) is not None:
                    self._say(f"{self.name}: {warning}")

    def _where(self) -> str:
        return f" (see {self._log.path})" if self._log is not None else ""


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
