"""The render thread's pulse: what it is doing and for how long it may."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_LOAD_S = 1800.0
"""A model that takes longer to load is hung."""
LONGEST_STEP_S = 300.0
"""A step that takes longer is hung, on any device."""
SLICES_AT_MOST = 30
"""A running set that never empties is emptied after so many slices: a task must end before its time limit."""
OF_A_USUAL_STEP = 50
"""So is one that takes this many times as long as steps did so far, but no sooner than two leases."""


class Pulse:
    """Written by the render thread, read by others. Leases are renewed only while it is `alive`."""

    def __init__(self, lease_s: float, *, may_compile: bool = False, say: Callable[[str], None] = lambda _: None) -> None:
        """`may_compile`: a step may take much longer than others, as its kernels may be compiled in it. `say` is told of each
        phase.
        """
        self.say = say
        self.lease_s = lease_s
        self.may_compile = may_compile
        self.phase = "idle"
        self.usual_step_s: float | None = None
        self._until = float("inf")
        self._step_began: float | None = None

    def idle(self) -> None:
        """Nothing is being done, and that may last."""
        self._enter("idle", float("inf"))

    def loading(self) -> None:
        """A model is being loaded."""
        self._enter("loading", LONGEST_LOAD_S)

    def finishing(self) -> None:
        """The render thread waits for a place in the finishing pool."""
        self._enter("finishing", LONGEST_STEP_S)

    def step(self) -> None:
        """A step begins, and with it the one before has ended."""
        patience = LONGEST_STEP_S
        if self.usual_step_s is not None and not self.may_compile:
            patience = min(patience, max(2 * self.lease_s, OF_A_USUAL_STEP * self.usual_step_s))
        self._enter("step", patience)
        self._step_began = time.monotonic()

    def step_done(self) -> None:
        """The step has ended; remember how long steps take."""
        if self._step_began is not None:
            took = time.monotonic() - self._step_began
            self.usual_step_s = took if self.usual_step_s is None else 0.9 * self.usual_step_s + 0.1 * took
        self._step_began = None

    @property
    def alive(self) -> bool:
        """False when the present phase has lasted longer than it can without being hung."""
        return time.monotonic() < self._until

    def _enter(self, phase: str, patience_s: float) -> None:
        self._until = time.monotonic() + patience_s
        self.phase = phase
        self.say(phase)
