"""The heartbeat: every few seconds the worker reports its state and reads the operator's desired state.

It also trims freed memory, because it knows when the worker is idle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from imagefarm.errors import NotFound
from imagefarm.logs import get_logger
from imagefarm.states import WorkerState
from scheduler.queue.workers import heartbeat, register
from worker.output.audit import peak_device_bytes, peak_rss_bytes
from worker.render.context import WorkerContext

log = get_logger(__name__)

EVERY_S = 5.0
MAX_JOBS = 32
"""Jobs named in one heartbeat; the total number is always exact."""


class Heartbeat:
    """Reports the worker's state, resident models and load; stores the operator's desired state in the context."""

    def __init__(self, context: WorkerContext) -> None:
        self.context = context
        self.failures = 0
        self.starting = True
        self.on_commands: Callable[[list[dict[str, str]]], None] = lambda _: None
        """Receives the operator commands that arrived since the last beat."""
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def now(self) -> None:
        """Beat now instead of at the next interval, because something has changed."""
        self._wake.set()

    def beat(self) -> None:
        """Send one heartbeat."""
        context = self.context
        try:
            try:
                desired_state, commands = self._tell()
            except NotFound:
                # the farm was unreachable until the sweep marked this worker offline
                register(context.store, context.identity)
                desired_state, commands = self._tell()
        except SQLAlchemyError as error:
            self.failures += 1
            log.warning("heartbeat.failed", error=str(error)[:200], failures=self.failures)
            return
        self.on_commands(commands)
        if desired_state != context.desired_state:
            log.info("worker.desired_state_changed", desired_state=desired_state)
            context.desired_state = desired_state

    def _tell(self) -> tuple[str, list[dict[str, str]]]:
        context = self.context
        return heartbeat(
            context.store, context.identity.id, self.state(), resident=list(context.residency.names), load=self.load()
        )

    def state(self) -> WorkerState:
        """The worker's current activity as one word."""
        context = self.context
        if self.starting:
            return WorkerState.STARTING
        if context.desired_state == WorkerState.QUARANTINED:
            return WorkerState.QUARANTINED
        if context.drain.is_requested or context.desired_state != WorkerState.READY:
            return WorkerState.DRAINING
        return WorkerState.BUSY if context.leased_jobs else WorkerState.READY

    def load(self) -> dict[str, object]:
        """What the worker holds and how fast it renders."""
        context = self.context
        leased = context.leased_jobs.all()
        running = [item for item in leased if item.finishing_at is None]
        return {
            "phase": context.step_deadline.phase,
            "running_images": sum(item.job.count for item in running),
            "max_images": context.settings.max_running_set_images,
            "jobs": [
                {"id": item.job.id, "model": item.job.model, "step": item.step, "steps": item.steps}
                for item in running[:MAX_JOBS]
            ],
            "leased_jobs": len(leased),
            "finishing_jobs": len(leased) - len(running),
            "images": context.finishing.images,
            "images_per_minute": context.finishing.images_per_minute(),
            "step_ms": None if context.step_deadline.mean_step_s is None else round(1000 * context.step_deadline.mean_step_s, 1),
            "peak_rss_bytes": peak_rss_bytes(),
            "peak_device_bytes": peak_device_bytes(),
            "memory": context.residency.facts(),
            "failures": {
                "finishing": context.finishing.failures,
                "progress": context.progress.failures,
                "heartbeat": self.failures,
            },
        }

    def _run(self) -> None:
        while not self._stopping:
            began = time.monotonic()
            self.beat()
            # not at the end of a slice: its images are still being stored then
            self.context.heap_trimmer.trim_if_due(busy=bool(self.context.leased_jobs))
            self._wake.wait(max(0.0, EVERY_S - (time.monotonic() - began)))
            self._wake.clear()
