"""Work that nobody waits for stands still while requests are answered: not for long ones, and not for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import create_engine, text

from api import giving_way
from api.giving_way import Patience, Traffic, patiently, traffic_of


@contextmanager
def answering(traffic_for: Callable[[Callable[..., Any]], Traffic]) -> Iterator[tuple[Traffic, threading.Event]]:
    """A request that is being answered until the event is set."""
    began, end = threading.Event(), threading.Event()

    def application(*_: Any) -> list[bytes]:
        began.set()
        end.wait(10)
        return []

    traffic = traffic_for(application)
    thread = threading.Thread(target=traffic, args=({}, None))
    thread.start()
    began.wait(10)
    try:
        yield traffic, end
    finally:
        end.set()
        thread.join(10)
        assert traffic.busy == 0


def test_it_goes_on_as_soon_as_the_request_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving_way, "LONG_S", 30.0)
    done: list[str] = []
    with answering(Traffic) as (traffic, end):
        patience = Patience(traffic, 30)

        def work() -> None:
            for piece in patience.between("abc"):
                done.append(piece)

        thread = threading.Thread(target=work)
        thread.start()
        assert not done
        end.set()
        thread.join(10)
    assert done == ["a", "b", "c"]
    assert 0 < patience.used_s < 10


def test_nobody_gives_way_to_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving_way, "LONG_S", 0.0)
    with answering(Traffic) as (traffic, _):
        Patience(traffic, 600).give_way()  # returns


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving_way, "LONG_S", 600.0)
    with answering(Traffic) as (traffic, _):
        patience = Patience(traffic, 0.02)
        for _ in range(3):
            patience.give_way()
        assert patience.used_s >= 0.02
        began = time.thread_time()
        patience.give_way()
        assert time.thread_time() - began < 1


def test_what_reads_patiently_stands_still_before_a_statement_and_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving_way, "LONG_S", 600.0)
    engine, app = create_engine("sqlite://"), Flask("quick")

    def around(application: Callable[..., Any]) -> Traffic:
        app.wsgi_app = application  # type: ignore[method-assign]
        giving_way.init_app(app, engine)
        return traffic_of(app)

    with answering(around) as (traffic, _), engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        patience = Patience(traffic, 0.01)
        with patiently(patience):
            connection.execute(text("SELECT 1"))
        assert patience.used_s >= 0.01
        used = patience.used_s
        connection.execute(text("SELECT 1"))
        assert patience.used_s == used
    engine.dispose()
