"""Backpressure: how many jobs and bytes may wait for storage. A whole running set may end at once; memory stays bounded."""

from __future__ import annotations

import threading


class InFlightLimit:
    """`min_jobs` jobs always fit; more, up to `max_jobs`, fit while all images together take at most `max_bytes`."""

    def __init__(self, *, min_jobs: int, max_jobs: int, max_bytes: int) -> None:
        self.min_jobs = min_jobs
        self.max_jobs = max_jobs
        self.max_bytes = max_bytes
        self._jobs = 0
        self._bytes = 0
        self._changed = threading.Condition()

    def acquire(self, nbytes: int) -> None:
        """Wait until a job with images of this many bytes fits, then count it."""
        with self._changed:
            self._changed.wait_for(lambda: self._fits(nbytes))
            self._jobs += 1
            self._bytes += nbytes

    def release(self, nbytes: int) -> None:
        """Release the job of this many bytes."""
        with self._changed:
            self._jobs -= 1
            self._bytes -= nbytes
            self._changed.notify_all()

    def _fits(self, nbytes: int) -> bool:
        return self._jobs < self.min_jobs or (self._jobs < self.max_jobs and self._bytes + nbytes <= self.max_bytes)
