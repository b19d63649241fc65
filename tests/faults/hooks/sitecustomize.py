"""Faults inside the processes of a farm under test. Python loads this module first if its folder is on PYTHONPATH.

Failpoints: a process that reaches a point looks for a file with that name in the folder `FARM_FAULTS`, removes the file and
performs its action: `kill` (-9 of itself), `stop` (SIGSTOP of itself), `hold` (this thread waits until it is released), `raise`,
or the error that is named at the point.
Hostile jobs: a prompt that begins with `hostile:` makes the engine perform the action of its next word. The farm's own code does
not contain this.
"""

from __future__ import annotations

import importlib.abc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("FARM_FAULTS", "/nonexistent"))


def armed(point: str) -> str | None:
    """Take the fault that is laid at this point, if there is one; return its action."""
    laid = FOLDER / point
    if not laid.exists():
        return None
    taken = FOLDER / f"{point}.{os.getpid()}.{time.monotonic_ns()}.taken"
    try:
        laid.rename(taken)
    except FileNotFoundError:  # another process was first
        return None
    order = json.loads(taken.read_text())
    if order["after"] > 0:
        again = FOLDER / f"{point}.{os.getpid()}.{threading.get_ident()}.again"
        again.write_text(json.dumps(order | {"after": order["after"] - 1}))
        again.rename(laid)
        return None
    return str(order["action"])


HELD_S = 60.0


def reach(point: str, subject: str = "") -> None:
    """Pass a point; die, freeze, wait or fail here if that is laid."""
    action = armed(point)
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "hold":
        held = FOLDER / f"{point}.held"
        held.write_text(subject)
        until = time.monotonic() + HELD_S
        while held.exists() and time.monotonic() < until:
            time.sleep(0.002)
    elif action == "raise":
        raise RuntimeError(f"a mistake at {point} (made up)")


def wrap(owner: Any, name: str, before: str | None = None, after: str | None = None) -> None:
    """Put points before and after a function."""
    inner = getattr(owner, name)

    def passing(*args: Any, **kwargs: Any) -> Any:
        if before:
            reach(before)
        result = inner(*args, **kwargs)
        if after:
            reach(after)
        return result

    setattr(owner, name, passing)


def outputs(module: Any) -> None:
    wrap(module.LocalOutputStore, "_put", before="before_rename")
    wrap(module.LocalOutputStore, "write", after="after_rename")


def finish(module: Any) -> None:
    inner = module.succeed

    def succeed(store: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
        reach("before_commit", job.id)
        ids = inner(store, job, *args, **kwargs)
        reach("after_commit")
        return ids

    module.succeed = succeed
    wrap(module, "_correct_charge", before="in_transaction")


def claim(module: Any) -> None:
    wrap(module, "claim", after="after_claim")


def child(module: Any) -> None:
    wrap(module.RenderProcess, "render", after="before_ack")


def batches(module: Any) -> None:
    wrap(module, "submit_jobs", after="in_bulk")


def bulk(module: Any) -> None:
    wrap(module, "cancel_where", after="in_bulk_cancel")


def store(module: Any) -> None:
    """The commit happened, but its answer was lost with the connection."""
    inner = module.Store.write

    @contextmanager
    def write(self: Any, **options: Any) -> Any:
        with inner(self, **options) as session:
            yield session
        if threading.current_thread().name.startswith("finishing") and armed("answer_lost"):
            from sqlalchemy.exc import OperationalError

            raise OperationalError("COMMIT", {}, Exception("connection lost"), connection_invalidated=True)

    module.Store.write = write


def engine(module: Any) -> None:
    """Jobs that harm their worker, and a device that fails."""
    import torch

    step, forward, advance = module.StepEngine.step, module.StepEngine._forward, module.StepEngine._advance

    def harmed_step(self: Any) -> Any:
        for running in self._jobs.values():
            harm(running.job)
        return step(self)

    def harmed_forward(self: Any, slots: list[Any]) -> None:
        if len(slots) > 2 and any(hostile(slot.job.job) == "oom" for slot in slots):
            raise torch.OutOfMemoryError("CUDA out of memory (made up)")
        if armed("device"):
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered (made up)")
        forward(self, slots)

    def harmed_advance(self: Any, slot: Any, prediction: Any) -> None:
        advance(self, slot, prediction * float("nan") if hostile(slot.job.job) == "nan" else prediction)

    module.StepEngine.step, module.StepEngine._forward, module.StepEngine._advance = harmed_step, harmed_forward, harmed_advance


def fake_device(module: Any) -> None:
    """Jobs that harm their worker, on the device `fake`."""
    step = module.FakeEngine.step

    def harmed_step(self: Any) -> Any:
        for job in self.running.values():
            harm(job)
        return step(self)

    module.FakeEngine.step = harmed_step


def hostile(job: Any) -> str:
    words = job.recipe.prompt.split()
    return words[1] if len(words) > 1 and words[0] == "hostile:" else ""


def harm(job: Any) -> None:
    """What this job does to the process that renders it."""
    deed = HARM.get(hostile(job))
    if deed is not None:
        deed()


def segfault() -> None:
    import ctypes

    ctypes.string_at(0)


def loop() -> None:
    while True:
        time.sleep(0.01)


def grip() -> None:
    """Native code that waits forever and holds the GIL, so no thread of the process runs."""
    import ctypes

    while True:
        ctypes.PyDLL(None).pause()


def eat_memory() -> None:
    """As far as a test may go on a shared machine; the kernel's answer to such a process is this signal. A worker with a
    limit never comes so far.
    """
    hoard = []
    for _ in range(48 if "IMAGEFARM_WORKER_MEMORY_LIMIT_GIB" in os.environ else 4):
        hoard.append(bytearray(os.urandom(1 << 20)) * 64)
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    os._exit(3)


HARM: dict[str, Callable[[], Any]] = {
    "abort": os.abort,
    "segfault": segfault,
    "loop": loop,
    "grip": grip,
    "memory": eat_memory,
    "exit": leave,
}
PATCHES: dict[str, Callable[[Any], None]] = {
    "imagefarm.output_store": outputs,
    "imagefarm.store.engine": store,
    "scheduler.queue.finish": finish,
    "scheduler.queue.claim": claim,
    "scheduler.queue.admission": batches,
    "scheduler.batches.bulk_actions": bulk,
    "worker.render_process": child,
    "worker.engine.engine": engine,
    "worker.fake_device": fake_device,
}
CONSTANTS: dict[str, dict[str, float]] = json.loads(os.environ.get("FARM_FAULTS_CONSTANTS", "{}"))
"""Module -> constant -> value. Shorter timeouts turn a quarter of an hour into seconds."""


class Finder(importlib.abc.MetaPathFinder):
    """Patches a module when it has just been imported."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in PATCHES and name not in CONSTANTS:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                execute = spec.loader.exec_module
                spec.loader.exec_module = partial(patched, execute)  # type: ignore[method-assign]
                return spec
        return None


def patched(execute: Callable[[Any], None], module: Any) -> None:
    """Execute a module, then change it."""
    execute(module)
    if module.__name__ in PATCHES:
        PATCHES[module.__name__](module)
    for constant, value in CONSTANTS.get(module.__name__, {}).items():
        setattr(module, constant, value)


SHIFT_S = float(os.environ.get("FARM_FAULTS_CLOCK", "0"))
"""How far this process's clock is off."""
if SHIFT_S:
    true_time, true_time_ns = time.time, time.time_ns
    time.time = lambda: true_time() + SHIFT_S
    time.time_ns = lambda: true_time_ns() + int(SHIFT_S * 1e9)
if FOLDER.is_dir():
    sys.meta_path.insert(0, Finder())
