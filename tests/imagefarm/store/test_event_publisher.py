"""Live events follow a commit, and only a commit."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from imagefarm.event_publisher import MAX_EVENTS, EventPublisher
from imagefarm.store import Store
from imagefarm.store.audit import append
from imagefarm.store.models import Event


def test_the_listener_hears_of_commits_only(store: Store) -> None:
    heard: list[dict[str, object]] = []
    store.listener = heard.extend
    with store.write() as session:
        append(session, "a", "job_1", "tenant_default", {"n": 1})
        assert heard == []
    assert heard == [{"kind": "a", "subject": "job_1", "tenant_id": "tenant_default", "data": {"n": 1}}]
    with pytest.raises(ValueError, match="no"):
        _write_and_fail(store)
    assert len(heard) == 1


def test_what_the_listener_hears_of_is_there_to_be_read(store: Store) -> None:
    seen: list[int | None] = []

    def look(events: list[dict[str, object]]) -> None:
        with store.read() as session:  # as a notified reader would
            seen.append(session.scalar(select(func.count()).select_from(Event).where(Event.subject == events[0]["subject"])))

    store.listener = look
    with store.write() as session:
        append(session, "a", "job_1", "tenant_default", {})
    assert seen == [1]


def test_a_bulk_change_is_told_as_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    live = EventPublisher(None, "test")  # type: ignore[arg-type]
    monkeypatch.setattr(live, "_start", lambda: None)  # what it would publish stays where it is
    event = {"kind": "job.cancelled", "subject": "job_1", "tenant_id": "tenant_default", "data": {}}
    for number, told in ((MAX_EVENTS, MAX_EVENTS), (MAX_EVENTS + 1, 1)):
        live([event] * number)
        assert live._events.qsize() == told
        last = [live._events.get_nowait() for _ in range(told)][-1]
    assert (last["kind"], last["tenant_id"], last["data"]) == ("bulk.changed", None, {"events": MAX_EVENTS + 1})


def _write_and_fail(store: Store) -> None:
    with store.write() as session:
        append(session, "b", "job_2", None, {})
        raise ValueError("no")
