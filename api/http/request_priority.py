"""Work that nobody waits for gives way: it stands still while a request is answered.

Python runs one thread of a process at a time. A request gives up its turn a dozen times, whenever it asks the database or
writes to a socket; beside a thread that always has something to do it waits for its turn anew each time. So such a thread says
between two steps that others may go first, and stands still until they are done, for no longer than it was told.
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
"""A request that takes longer waits for something itself, or is a large one: nobody gives way to it any more."""
KEY = "imagefarm.in_flight_requests"


class InFlightRequests:
    """The requests that are being answered in this process; a layer around its application counts them."""

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
        """Stand still while requests are answered that began just now; the answer is for how many seconds."""
        began = now = time.monotonic()
        with self._calm:
            while self.busy and (left := min(self._until, began + at_most_s) - now) > 0:
                self._calm.wait(left)
                now = time.monotonic()
        return now - began


class YieldBudget:
    """For how long a piece of work still gives way."""

    def __init__(self, in_flight: InFlightRequests, seconds: float) -> None:
        self._in_flight = in_flight
        self._seconds = seconds
        self.used_s = 0.0

    def yield_now(self) -> None:
        """Let requests go first, if there are any and there is budget left."""
        if self._in_flight.busy and (left_s := self._seconds - self.used_s) > 0:
            self.used_s += self._in_flight.wait(left_s)

    def between(self, pieces: Iterable[T]) -> Iterator[T]:
        """These pieces; others may go first before each."""
        for piece in pieces:
            if self._in_flight.busy:
                self.yield_now()
            yield piece


YIELD_BUDGET: ContextVar[YieldBudget | None] = ContextVar("yield_budget", default=None)
"""That of this thread's present work."""


@contextmanager
def yielding_to_requests(budget: YieldBudget) -> Iterator[None]:
    """Give way before each statement of the block, and wherever it looks at `YIELD_BUDGET`."""
    token = YIELD_BUDGET.set(budget)
    try:
        yield
    finally:
        YIELD_BUDGET.reset(token)


def init_app(app: Flask, reader: Engine) -> None:
    """Count the application's requests; let what reads from this database give way between its statements."""
    app.wsgi_app = app.extensions[KEY] = InFlightRequests(app.wsgi_app)  # type: ignore[method-assign]

    @event.listens_for(reader, "before_cursor_execute")
    def _before(*_: Any) -> None:
        budget = YIELD_BUDGET.get()
        if budget is not None:
            budget.yield_now()


def in_flight_requests(app: Flask) -> InFlightRequests:
    """The requests of an application."""
    in_flight: InFlightRequests = app.extensions[KEY]
    return in_flight
