"""A child whose interpreter stands still cannot notice it; its parent does."""

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
from worker import sign_of_life
from worker.parent import Overseer
from worker.sign_of_life import SHARED, SignOfLife, SilenceWatch

CHILD = """
import ctypes, os, sys
from worker.sign_of_life import SignOfLife
sign = SignOfLife(os.environ["FARM_WORKER_SIGNS"])
sign.start()
for line in sys.stdin:
    sign.say(line.strip())
    if line.strip() != "idle":
        ctypes.PyDLL(None).pause()  # native code that keeps the interpreter's lock
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_of_life, "SILENT_S", 1.0)


@pytest.fixture
def watched(quick: None) -> Iterator[tuple[SilenceWatch, subprocess.Popen[str]]]:
    """A watch over a child that counts, and does what it is told."""
    watch = SilenceWatch()
    watch.child_starts()
    text = CHILD.replace("sign = ", "import worker.sign_of_life as s; s.COUNT_EVERY_S = 0.05\nsign = ")
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


def look_for(watch: SilenceWatch, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not watch.ended:
        watch.look()
        time.sleep(0.02)


@pytest.mark.parametrize(("phase", "a_job_is_to_blame"), [("step", True), ("finishing", False)])
def test_a_child_that_keeps_the_interpreters_lock_is_ended(
    watched: tuple[SilenceWatch, subprocess.Popen[str]], settings: Settings, phase: str, a_job_is_to_blame: bool
) -> None:
    watch, child = watched
    tell(child, "idle")
    while watch._seen[1] < 30:
        watch.look()
        time.sleep(0.01)
    assert not watch.ended, "a child that counts is left alone"
    tell(child, phase)
    look_for(watch, 20.0)
    assert child.wait(10) == -signal.SIGKILL
    overseer = Overseer(None, settings, ["demo"], "node")  # type: ignore[arg-type]
    overseer.child_ended("wrk_a", child.returncode, watch.ended[child.pid])
    ((_, reason, by_itself),) = overseer._deaths
    assert reason.startswith("hung: its process gave no sign of life for ")
    assert f"({phase})" in reason
    assert by_itself is a_job_is_to_blame


def test_a_load_may_be_silent_for_longer(watched: tuple[SilenceWatch, subprocess.Popen[str]]) -> None:
    watch, child = watched
    tell(child, "loading")
    while watch.silent_s < 1.5:
        watch.look()
        time.sleep(0.02)
    assert not watch.ended
    assert child.poll() is None


def test_a_child_that_has_not_begun_to_count_is_not_judged(quick: None) -> None:
    watch = SilenceWatch()
    watch.children = lambda: [os.getpid()]
    watch.look()
    watch.child_starts()
    look_for(watch, 1.5)
    assert (watch.ended, watch.silent_s) == ({}, 0.0)


def test_what_the_parent_slept_through_itself_is_not_counted() -> None:
    watch = SilenceWatch()
    watch.child_starts()
    sign = SignOfLife(os.environ[SHARED])
    assert not Path(os.environ[SHARED]).exists(), "nothing is left behind"
    sign.say("step")
    sign.count()
    watch.look()
    watch.look()
    before = watch.silent_s
    watch._looked_at -= 3600
    watch.look()
    assert watch.silent_s - before <= 2 * sign_of_life.LOOK_EVERY_S


def test_a_disk_without_room_for_the_memory_stops_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    watch = SilenceWatch()
    watch.child_starts()
    assert SHARED not in os.environ
    watch.look()
    SignOfLife("/nonexistent/file").start()
