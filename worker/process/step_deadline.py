"""The render thread's current phase and the deadline of that phase."""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_LOAD_S = 1800.0
"""A model load that takes longer, in seconds, is hung."""
MAX_STEP_S = 300.0
"""A step that takes longer, in seconds, is hung, on any device."""
MAX_SLICES = 30
"""A running set that never empties is emptied after this number of slices, because a task must end before its time limit."""
HUNG_AFTER_MEAN_STEPS = 50
"""A step is also hung after this many times the mean step, but never before two lease times have passed."""


class StepDeadline:
    """Written by the render thread, read by other threads. Leases are renewed only while `is_met`."""

    def __init__(self, lease_s: float, *, may_compile: bool = False, on_phase: Callable[[str], None] = lambda _: None) -> None:
        """`may_compile`: kernels may be compiled during a step, which then takes much longer than others. `on_phase` is called
        with each phase.
        """
        self.on_phase = on_phase
        self.lease_s = lease_s
        self.may_compile = may_compile
        self.phase = "idle"
        self.mean_step_s: float | None = None
        self._until = float("inf")
        self._step_began: float | None = None

    def idle(self) -> None:
        """The render thread is idle, without a deadline."""
        self._enter("idle", float("inf"))

    def loading(self) -> None:
        """A model is being loaded."""
        self._enter("loading", MAX_LOAD_S)

    def finishing(self) -> None:
        """The render thread waits for a place in the finishing pool."""
        self._enter("finishing", MAX_STEP_S)

    def step(self) -> None:
        """A step begins. Replaces the previous step's deadline."""
        allowed_s = MAX_STEP_S
        if self.mean_step_s is not None and not self.may_compile:
            allowed_s = min(allowed_s, max(2 * self.lease_s, HUNG_AFTER_MEAN_STEPS * self.mean_step_s))
        self._enter("step", allowed_s)
        self._step_began = time.monotonic()

    def step_done(self) -> None:
        """The step has ended. Updates the mean step time."""
        if self._step_began is not None:
            took = time.monotonic() - self._step_began
            self.mean_step_s = took if self.mean_step_s is None else 0.9 * self.mean_step_s + 0.1 * took
        self._step_began = None

    @property
    def is_met(self) -> bool:
        """Whether the current phase is within its deadline."""
        return time.monotonic() < self._until

    def _enter(self, phase: str, allowed_s: float) -> None:
        self._until = time.monotonic() + allowed_s
        self.phase = phase
        self.on_phase(phase)
