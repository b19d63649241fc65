"""Background work that yields to requests: it pauses while requests are being served.

Python runs one thread of a process at a time. A request releases the GIL about a dozen times, at each database call and socket
write. Beside a busy thread it waits for the GIL each time. So a busy background thread calls `yield_now` between its steps and
pauses until the requests are done or its budget of seconds is spent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from flask import Flask
from sqlalchemy import Engine, event

T = TypeVar("T")
LONG_S = 0.05
"""Seconds after which background work no longer waits for a request: the request is large, or waits for something itself."""
KEY = "imagefarm.in_flight_requests"


class InFlightRequests:
    """WSGI middleware that counts the requests in progress in this process."""

    def __init__(self, application: Callable[..., Any]) -> None:
        self._application = application
        self._calm = threading.Condition()
        self._until = 0.0
        self.busy = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        with self._calm:
            self.busy += 1
            self._until = time.monotonic() + LONG_S
        try:
            return self._application(environ, start_response)
        finally:
            with self._calm:
                self.busy -= 1
                if not self.busy:
                    self._calm.notify_all()

    def wait(self, at_most_s: float) -> float:
        """Wait while young requests are in progress, `at_most_s` seconds at most. Return the seconds waited."""
        began = now = time.monotonic()
        with self._calm:
            while self.busy and (left := min(self._until, began + at_most_s) - now) > 0:
                self._calm.wait(left)
                now = time.monotonic()
        return now - began


class YieldBudget:
    """The seconds that one piece of background work may still spend on yielding to requests."""

    def __init__(self, in_flight: InFlightRequests, seconds: float) -> None:
        self._in_flight = in_flight
        self._seconds = seconds
        self.used_s = 0.0

    def yield_now(self) -> None:
        """Wait for requests in progress, if budget is left."""
        if self._in_flight.busy and (left_s := self._seconds - self.used_s) > 0:
            self.used_s += self._in_flight.wait(left_s)

    def between(self, pieces: Iterable[T]) -> Iterator[T]:
        """Iterate over `pieces`, yielding to requests before each."""
        for piece in pieces:
            if self._in_flight.busy:
                self.yield_now()
            yield piece


YIELD_BUDGET: ContextVar[YieldBudget | None] = ContextVar("yield_budget", default=None)
"""The budget of the work that this thread does now; None outside background work."""


@contextmanager
def yielding_to_requests(budget: YieldBudget) -> Iterator[None]:
    """Yield to requests before each SQL statement of the block, and at each `yield_now` of `YIELD_BUDGET`."""
    token = YIELD_BUDGET.set(budget)
    try:
        yield
    finally:
        YIELD_BUDGET.reset(token)


def init_app(app: Flask, reader: Engine) -> None:
    """Count the application's requests, and make statements on this engine yield to them inside `yielding_to_requests`."""
    app.wsgi_app = app.extensions[KEY] = InFlightRequests(app.wsgi_app)  # type: ignore[method-assign]

    @event.listens_for(reader, "before_cursor_execute")
    def _before(*_: Any) -> None:
        budget = YIELD_BUDGET.get()
        if budget is not None:
            budget.yield_now()


def in_flight_requests(app: Flask) -> InFlightRequests:
    """The counter of an application's requests."""
    in_flight: InFlightRequests = app.extensions[KEY]
    return in_flight
