"""A supervised process: restarted with growing pauses, its output kept, ended with all it started."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from imagefarm.supervisor.log_file import QUIET_S, Repeats, as_warning
from imagefarm.supervisor.managed_process import ManagedProcess
from imagefarm.supervisor.services import Service
from imagefarm.supervisor.watchdog import Watchdog
from tests.waiting import until

FOREVER = "import time; time.sleep(600)"
WITH_CHILD = (
    f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', '{FOREVER}']); print(p.pid, flush=True); p.wait()"
)


class Said:
    """The lines shown to the operator."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def watchdog(starts_process: None) -> Iterator[Watchdog]:
    watchdog = Watchdog()
    yield watchdog
    watchdog.close()


def make(code: str, watchdog: Watchdog, said: Said, tmp_path: Path) -> ManagedProcess:
    service = Service(name="part", command=(sys.executable, "-S", "-c", code))
    return ManagedProcess(service, os.environ, watchdog=watchdog, say=said, cwd=tmp_path, log=tmp_path / "part.log")


def test_one_that_dies_is_started_again_and_that_is_said(watchdog: Watchdog, tmp_path: Path) -> None:
    said = Said()
    child = make("import sys; print('last words'); sys.exit(3)", watchdog, said, tmp_path)
    child.start()
    until(lambda: len(said.lines) >= 2, "two ends")
    child.kill()
    assert "part ended with exit code 3; starting it again in 0.5 s" in said.lines[0]
    assert "in 1 s" in said.lines[1]
    assert str(tmp_path / "part.log") in said.lines[0]
    assert child.last_words == "last words"
    assert (tmp_path / "part.log").read_text().count("last words") >= 2


def test_what_a_dead_parent_left_is_killed_before_the_next_start(watchdog: Watchdog, tmp_path: Path) -> None:
    child = make(WITH_CHILD, watchdog, Said(), tmp_path)
    child.start()
    until(lambda: child.last_words.strip().isdigit(), "its child's pid")
    grandchild, first = int(child.last_words), child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: child.pid not in (None, first), "a new process")
    until(lambda: not psutil.pid_exists(grandchild), "the end of the orphan")
    child.kill()


def test_stop_ends_it_for_good(watchdog: Watchdog, tmp_path: Path) -> None:
    said = Said()
    child = make(FOREVER, watchdog, said, tmp_path)
    child.start()
    until(lambda: child.pid is not None, "the start")
    child.stop()
    assert child.wait(10)
    assert child.pid is None
    assert child.starts == 1
    assert said.lines == []


def test_kill_ends_one_that_ignores_sigterm_with_its_children(watchdog: Watchdog, tmp_path: Path) -> None:
    child = make("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WITH_CHILD, watchdog, Said(), tmp_path)
    child.start()
    until(lambda: child.last_words.strip().isdigit(), "its child's pid")
    grandchild = int(child.last_words)
    child.stop()
    assert not child.wait(0.3)
    child.kill()
    assert child.pid is None
    until(lambda: not psutil.pid_exists(grandchild), "the end of its child")


def test_one_that_cannot_be_started_is_said(watchdog: Watchdog, tmp_path: Path) -> None:
    said = threading.Event()
    lines = []

    def say(line: str) -> None:
        lines.append(line)
        said.set()

    service = Service(name="part", command=("/nowhere/at/all",))
    child = ManagedProcess(service, os.environ, watchdog=watchdog, say=say, cwd=tmp_path, log=tmp_path / "part.log")
    child.start()
    assert said.wait(10)
    child.kill()
    assert "part cannot be started" in lines[0]


def test_warnings_reach_the_operator_in_one_line(watchdog: Watchdog, tmp_path: Path) -> None:
    said = Said()
    line = '{"event": "model.invalid", "level": "error", "model": "sdxl", "exception": "Trace\\n  at\\nOSError: no"}'
    child = make(f"print({line!r}, flush=True); {FOREVER}", watchdog, said, tmp_path)
    child.start()
    until(lambda: said.lines, "the warning")
    child.kill()
    assert said.lines == ["part: model.invalid model=sdxl OSError: no"]
    assert as_warning(line) == "model.invalid model=sdxl OSError: no"
    assert as_warning('{"event": "fine", "level": "info"}') is None
    assert as_warning("{not json") is None


def test_a_repeated_warning_is_shown_once_per_interval() -> None:
    repeats = Repeats()
    line = "Task sweep[8cd1e2f3-0b62-4d07-8e9f-000000000{}] failed after {} s for job_01M7YH19JH30VB89ZKDJB0PG{}"
    shown = [
        repeats.filter(line.format(number, number / 7, 10 + number), now=float(number)) for number in range(int(QUIET_S) + 1)
    ]
    assert shown[0] == line.format(0, 0.0, 10)
    assert shown[1:-1] == [None] * (len(shown) - 2)
    assert shown[-1] is not None
    assert shown[-1].endswith(f"(and {len(shown) - 2} more like it)")
    assert repeats.filter("another matter", now=1.0) == "another matter"
