"""The audit chain: whole as written, broken by any edit."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, update

from imagefarm.store import Store
from imagefarm.store.audit import append, append_many, seal, verify
from imagefarm.store.models import Event


@pytest.fixture
def chained(store: Store) -> Store:
    with store.write() as session:
        append(session, "job.submitted", "job_1", "tenant_default", {"n": 1, "text": "é 红"})
        append_many(
            session, [("job.claimed", f"job_{n}", None, {"x": 0.1 + 0.2, "deep": {"b": [1], "a": None}}) for n in range(20)]
        )
    for _ in range(3):
        with store.write() as session:
            seal(session, limit=10)
    return store


def test_a_chain_is_whole(chained: Store) -> None:
    with chained.read() as session:
        report = verify(session)
    assert report.whole
    assert report.sealed == 21
    assert report.unsealed == 0
    with chained.write() as session:
        append(session, "late", "x", None, {})
    with chained.read() as session:
        assert verify(session).unsealed == 1


@pytest.mark.parametrize("edit", ["data", "at", "subject", "removed", "last_removed_is_seen_as_shorter"])
def test_an_edit_breaks_it(chained: Store, edit: str) -> None:
    with chained.write() as session:
        if edit == "data":
            session.execute(update(Event).where(Event.seq == 7).values(data={"x": 1}))
        elif edit == "at":
            session.execute(update(Event).where(Event.seq == 7).values(at=Event.at + 1))
        elif edit == "subject":
            session.execute(update(Event).where(Event.seq == 7).values(subject="job_x"))
        elif edit == "removed":
            session.execute(delete(Event).where(Event.seq == 7))
        else:
            session.execute(delete(Event).where(Event.seq == 21))
    with chained.read() as session:
        report = verify(session)
    if edit.startswith("last"):
        assert (report.whole, report.sealed) == (True, 20)  # only a head kept elsewhere shows a cut tail
    else:
        assert report.broken_at == 7
