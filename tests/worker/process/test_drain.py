"""A drain: begun once, by SIGTERM while a slice runs, and its time runs down."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from worker.process import drain as drain_module
from worker.process.drain import MAX_DRAIN_S, Drain


@pytest.fixture
def ended() -> Iterator[list[int]]:
    """The signals that the handler of before the first slice got."""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    yield got
    signal.signal(signal.SIGTERM, before)


def test_its_time_runs_down_and_it_begins_once() -> None:
    drain = Drain()
    assert not drain.is_requested
    drain.begin()
    assert drain.is_requested
    assert MAX_DRAIN_S - 5 < drain.seconds_left() <= MAX_DRAIN_S
    drain.since = began = time.monotonic() - MAX_DRAIN_S + 3
    drain.begin()
    assert drain.since == began, "a second request does not restart it"
    assert drain.seconds_left() <= 3


def test_sigterm_within_a_slice_drains_and_ends_the_process_a_little_later(
    ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "LEAVE_AFTER_S", 0.05)
    drain = Drain()
    with drain.slice():
        os.kill(os.getpid(), signal.SIGTERM)
        assert drain.is_requested
        assert ended == []
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(10)
    assert ended == [signal.SIGTERM], "its parent did not end it, so it ends itself"


def test_sigterm_between_two_slices_ends_the_process_at_once(ended: list[int]) -> None:
    drain = Drain()
    with drain.slice():
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    assert (ended, drain.is_requested) == ([signal.SIGTERM], False)
