"""Nothing is left running when the supervisor is killed without warning."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from imagefarm.settings import PROJECT_ROOT
from imagefarm.supervisor.watchdog import Watchdog
from tests.waiting import until

SUPERVISOR = """
import os, sys, time
from pathlib import Path
import pytest

from imagefarm.supervisor.managed_process import ManagedProcess
import pytest

from imagefarm.supervisor.services import Service
import pytest

from imagefarm.supervisor.watchdog import Watchdog
code = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); import time; time.sleep(600)"
child = ManagedProcess(Service(name="part", command=(sys.executable, "-c", code)), os.environ, watchdog=Watchdog(), say=print,
              cwd=Path("."), log=Path("part.log"))
child.start()
while not child.last_words: time.sleep(0.02)
print(child.pid, child.last_words, flush=True)
time.sleep(600)
"""


@pytest.mark.process
def test_kill_9_of_the_supervisor_ends_all_it_started(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    )
    assert supervisor.stdout is not None
    pids = [int(pid) for pid in supervisor.stdout.readline().split()]
    watchdogs = [child.pid for child in psutil.Process(supervisor.pid).children() if child.pid not in pids]
    assert len(pids) == 2
    assert len(watchdogs) == 1
    supervisor.kill()
    supervisor.wait()
    for pid in [*pids, *watchdogs]:
        until(lambda pid=pid: not psutil.pid_exists(pid), f"the end of process {pid}")


@pytest.mark.process
def test_a_watchdog_that_was_killed_is_replaced_and_knows_all_groups() -> None:
    watchdog = Watchdog()
    guarded = subprocess.Popen(["sleep", "600"], process_group=0)
    watchdog.add(guarded.pid)
    os.kill(watchdog.pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(watchdog.pid) or psutil.Process(watchdog.pid).status() == "zombie", "its end")
    ended = subprocess.Popen(["true"], process_group=0)
    watchdog.add(ended.pid)  # the next word finds the pipe broken
    ended.wait()
    watchdog.remove(ended.pid)
    watchdog.close()
    assert guarded.wait(10) == -signal.SIGKILL
