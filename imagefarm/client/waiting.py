"""Waits for a job or a batch by polling it at growing intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from imagefarm.client.errors import WaitTimeoutError
from imagefarm.client.request import Pause, Steps

T = TypeVar("T")

FIRST_POLL_S = 0.1
MAX_POLL_S = 1.0


def wait_until(
    look: Callable[[], Steps[T]], ended: Callable[[T], bool], timeout_s: float | None, on_progress: Callable[[T], None] | None
) -> Steps[T]:
    """Poll until `ended` returns true. Raises WaitTimeoutError after `timeout_s` seconds."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause = FIRST_POLL_S
    while True:
        seen = yield from look()
        if on_progress is not None:
            on_progress(seen)
        if ended(seen):
            return seen
        if deadline is not None and time.monotonic() + pause > deadline:
            raise WaitTimeoutError(f"not ended after {timeout_s:g} s; it continues")
        yield Pause(pause)
        pause = min(pause * 1.3, MAX_POLL_S)


@contextmanager
def optional_bar(shown: bool, words: str, total: float) -> Iterator[Callable[..., None]]:
    """A bar on a terminal, or nothing."""
    if not shown:
        yield lambda *_: None
        return
    from imagefarm.client.progress import progress_bar  # Rich is slow to import, and few programs show a bar

    with progress_bar(words, total) as advance:
        yield advance
