"""A stage of training that lasts a given time, and the line that it prints now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np


class Progress:
    """Counts the steps of a stage of `seconds` of wall-clock time and prints the means of the reported values.

    A stage is limited by time, not by steps: a slower machine trains less, and the learning-rate schedule still ends.
    """

    def __init__(self, stage: str, seconds: float, every: int = 50) -> None:
        self.stage, self.seconds, self.every = stage, seconds, every
        self.steps = 0
        self._start = time.monotonic()
        self._seen: dict[str, list[float]] = {}

    def fractions(self) -> Iterator[float]:
        """Yield `done()` once a step until the stage's time is over; every step must end with `step()`."""
        while (done := self.done()) < 1:
            yield done

    def done(self) -> float:
        """How much of the stage's time has passed: 0 at the start, 1 and more at its end."""
        return self.elapsed() / self.seconds

    def elapsed(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - self._start

    def step(self, values: Mapping[str, float]) -> None:
        """End a step with these values; print their means over the last steps now and then."""
        self.steps += 1
        for name, value in values.items():
            self._seen.setdefault(name, []).append(value)
        if self.steps % self.every == 0:
            means = " ".join(f"{name} {np.mean(seen):.4g}" for name, seen in self._seen.items())
            print(f"{self.stage} step {self.steps} at {self.elapsed():.0f} s: {means}", flush=True)
            self._seen = {}
