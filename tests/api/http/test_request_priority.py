"""Background work pauses while requests are served, but not for long requests and only for a limited time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import create_engine, text

from api.http import request_priority
from api.http.request_priority import InFlightRequests, YieldBudget, in_flight_requests, yielding_to_requests


@contextmanager
def answering(
    in_flight_for: Callable[[Callable[..., Any]], InFlightRequests],
) -> Iterator[tuple[InFlightRequests, threading.Event]]:
    """A request that is being answered until the event is set."""
    began, end = threading.Event(), threading.Event()

    def application(*_: Any) -> list[bytes]:
        began.set()
        end.wait(10)
        return []

    in_flight = in_flight_for(application)
    thread = threading.Thread(target=in_flight, args=({}, None))
    thread.start()
    began.wait(10)
    try:
        yield in_flight, end
    finally:
        end.set()
        thread.join(10)
        assert in_flight.busy == 0


def test_it_goes_on_as_soon_as_the_request_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_priority, "LONG_S", 30.0)
    done: list[str] = []
    with answering(InFlightRequests) as (in_flight, end):
        budget = YieldBudget(in_flight, 30)

        def work() -> None:
            for piece in budget.between("abc"):
                done.append(piece)

        thread = threading.Thread(target=work)
        thread.start()
        assert not done
        end.set()
        thread.join(10)
    assert done == ["a", "b", "c"]
    assert 0 < budget.used_s < 10


def test_nobody_yields_to_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_priority, "LONG_S", 0.0)
    with answering(InFlightRequests) as (in_flight, _):
        YieldBudget(in_flight, 600).yield_now()  # returns


def test_a_budget_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_priority, "LONG_S", 600.0)
    with answering(InFlightRequests) as (in_flight, _):
        budget = YieldBudget(in_flight, 0.02)
        for _ in range(3):
            budget.yield_now()
        assert budget.used_s >= 0.02
        began = time.thread_time()
        budget.yield_now()
        assert time.thread_time() - began < 1


def test_what_yields_waits_before_each_statement_and_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_priority, "LONG_S", 600.0)
    engine, app = create_engine("sqlite://"), Flask("quick")

    def around(application: Callable[..., Any]) -> InFlightRequests:
        app.wsgi_app = application  # type: ignore[method-assign]
        request_priority.init_app(app, engine)
        return in_flight_requests(app)

    with answering(around) as (in_flight, _), engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        budget = YieldBudget(in_flight, 0.01)
        with yielding_to_requests(budget):
            connection.execute(text("SELECT 1"))
        assert budget.used_s >= 0.01
        used = budget.used_s
        connection.execute(text("SELECT 1"))
        assert budget.used_s == used
    engine.dispose()
