"""The private parts of Celery's pool that the worker's parent uses, on a real pool: a version that changed them fails here."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from celery.exceptions import WorkerShutdown
from celery.worker import components
from celery.worker import state as celery_state

from imagefarm.settings import PROJECT_ROOT
from worker.process.billiard_adapter import POOL_STEP, describe_exit, has_active_tasks, request_shutdown

SCENE = """
import json, os, signal, sys, time
from types import SimpleNamespace
from celery.concurrency.asynpool import AsynPool
from worker.process.billiard_adapter import PreforkPool

def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)

def main():
    celerys_own, ends = [], []
    billiards = AsynPool(processes=1, on_process_down=lambda process: celerys_own.append(process.pid), threads=False)
    pool = PreforkPool(SimpleNamespace(pool=SimpleNamespace(_pool=billiards)))
    (first,) = pool.pids()
    for _ in range(2):  # as after a second connection to the broker
        pool.on_child_end(lambda pid, code: ends.append((pid, code, [live for live in pool.pids() if live != pid])))
    os.kill(first, signal.SIGKILL)
    until(lambda: pool.reap() or pool.pids() not in ([], [first]))
    (second,) = pool.pids()
    pool.terminate_children()
    until(lambda: pool.reap() or len(ends) == 2)
    print(json.dumps({"pids": [first, second], "celerys_own": celerys_own, "ends": ends}), flush=True)
    for pid in pool.pids():
        os.kill(pid, signal.SIGKILL)
    os._exit(0)

if __name__ == "__main__":
    main()
"""


def test_children_that_end_are_reported_once_before_they_are_replaced(starts_process: None, tmp_path: Path) -> None:
    script = tmp_path / "scene.py"
    script.write_text(SCENE)
    ran = subprocess.run(
        [sys.executable, script],
        cwd=PROJECT_ROOT,
        env={"PYTHONPATH": str(PROJECT_ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout)
    (killed, none_yet), (terminated, none_yet_either) = [(end[0], end[2]) for end in seen["ends"]]
    assert [killed, terminated] == seen["pids"] == seen["celerys_own"]
    assert (none_yet, none_yet_either) == ([], [])
    assert seen["ends"][0][1] == -signal.SIGKILL


def test_names_of_celery(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"{components.Pool.__module__}:{components.Pool.__name__}" == POOL_STEP
    assert describe_exit(-signal.SIGKILL) == "signal 9 (SIGKILL)"
    assert not has_active_tasks()
    monkeypatch.setattr(celery_state, "active_requests", {"a task"})
    assert has_active_tasks()
    monkeypatch.setattr(celery_state, "should_stop", None)
    request_shutdown()
    with pytest.raises(WorkerShutdown):
        celery_state.maybe_shutdown()
