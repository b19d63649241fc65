"""Places on the way to the store: a whole running set may end at once without the device waiting, but memory stays bounded."""

from __future__ import annotations

import threading


class Places:
    """`always` jobs are let in whatever their size; more, up to `most`, while all pictures together take at most `most_bytes`."""

    def __init__(self, *, always: int, most: int, most_bytes: int) -> None:
        self.always = always
        self.most = most
        self.most_bytes = most_bytes
        self._jobs = 0
        self._bytes = 0
        self._left = threading.Condition()

    def take(self, nbytes: int) -> None:
        """Wait for a place for a job with pictures of so many bytes, and take it."""
        with self._left:
            self._left.wait_for(lambda: self._fits(nbytes))
            self._jobs += 1
            self._bytes += nbytes

    def give(self, nbytes: int) -> None:
        """The job of so many bytes has ended."""
        with self._left:
            self._jobs -= 1
            self._bytes -= nbytes
            self._left.notify_all()

    def _fits(self, nbytes: int) -> bool:
        return self._jobs < self.always or (self._jobs < self.most and self._bytes + nbytes <= self.most_bytes)
