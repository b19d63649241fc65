"""A child whose interpreter hangs cannot notice it; its parent does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefarm.settings import PROJECT_ROOT, Settings
from worker.child_monitor import ChildMonitor
from worker.process import liveness
from worker.process.liveness import LIVENESS_FILE, LivenessCounter, LivenessMonitor

CHILD = """
import ctypes, os, sys
from worker.process.liveness import LivenessCounter
liveness = LivenessCounter(os.environ["FARM_WORKER_LIVENESS"])
liveness.start()
for line in sys.stdin:
    liveness.set_phase(line.strip())
    if line.strip() != "idle":
        ctypes.PyDLL(None).pause()  # native code that keeps the interpreter's lock
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "STALL_TIMEOUT_S", 1.0)


@pytest.fixture
def watched(starts_process: None, quick: None) -> Iterator[tuple[LivenessMonitor, subprocess.Popen[str]]]:
    """A monitor, and a child that counts and reads commands."""
    watch = LivenessMonitor()
    watch.child_starts()
    text = CHILD.replace("liveness = ", "import worker.process.liveness as s; s.COUNT_INTERVAL_S = 0.05\nliveness = ")
    with subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, text=True, cwd=PROJECT_ROOT) as child:
        try:
            watch.children = lambda: [child.pid]
            yield watch, child
        finally:
            child.kill()


def tell(child: subprocess.Popen[str], phase: str) -> None:
    assert child.stdin is not None
    child.stdin.write(phase + "\n")
    child.stdin.flush()


def check_for(watch: LivenessMonitor, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not watch.ended:
        watch.check()
        time.sleep(0.02)


@pytest.mark.parametrize(("phase", "a_job_is_to_blame"), [("step", True), ("finishing", False)])
def test_a_child_that_keeps_the_interpreters_lock_is_ended(
    watched: tuple[LivenessMonitor, subprocess.Popen[str]], settings: Settings, phase: str, a_job_is_to_blame: bool
) -> None:
    watch, child = watched
    tell(child, "idle")
    while watch._seen[1] < 30:
        watch.check()
        time.sleep(0.01)
    assert not watch.ended, "a child that counts is left alone"
    tell(child, phase)
    check_for(watch, 20.0)
    assert child.wait(10) == -signal.SIGKILL
    child_monitor = ChildMonitor(None, settings, ["demo"], "node")  # type: ignore[arg-type]
    child_monitor.child_ended("wrk_a", child.returncode, watch.ended[child.pid])
    ((_, reason, self_inflicted),) = child_monitor._deaths
    assert reason.startswith("hung: its liveness counter stopped for ")
    assert f"({phase})" in reason
    assert self_inflicted is a_job_is_to_blame


def test_a_load_may_be_silent_for_longer(watched: tuple[LivenessMonitor, subprocess.Popen[str]]) -> None:
    watch, child = watched
    tell(child, "loading")
    while watch.stalled_s < 1.5:
        watch.check()
        time.sleep(0.02)
    assert not watch.ended
    assert child.poll() is None


def test_a_child_that_has_not_begun_to_count_is_not_judged(quick: None) -> None:
    watch = LivenessMonitor()
    watch.children = lambda: [os.getpid()]
    watch.check()
    watch.child_starts()
    check_for(watch, 1.5)
    assert (watch.ended, watch.stalled_s) == ({}, 0.0)


def test_what_the_parent_slept_through_itself_is_not_counted() -> None:
    watch = LivenessMonitor()
    watch.child_starts()
    counter = LivenessCounter(os.environ[LIVENESS_FILE])
    assert not Path(os.environ[LIVENESS_FILE]).exists(), "nothing is left behind"
    counter.set_phase("step")
    counter.count()
    watch.check()
    watch.check()
    before = watch.stalled_s
    watch._checked_at -= 3600
    watch.check()
    assert watch.stalled_s - before <= 2 * liveness.CHECK_INTERVAL_S


def test_a_disk_without_room_for_the_memory_stops_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    watch = LivenessMonitor()
    watch.child_starts()
    assert LIVENESS_FILE not in os.environ
    watch.check()
    LivenessCounter("/nonexistent/file").start()
