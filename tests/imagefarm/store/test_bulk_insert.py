"""Many rows in one statement: every value arrives as if it had been bound alone."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select

from imagefarm.catalogue import Catalogue
from imagefarm.ids import new_id
from imagefarm.recipe import JobRequest
from imagefarm.store import Store
from imagefarm.store.bulk_insert import insert_many
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Event, Job
from scheduler.queue.new_job import make_job

NASTY = ["plain", "红色马克杯", 'O\'Brien "quoted" \\ % %s :name $1', "{}", "null", "12.50", "line\nbreak\ttab", "", "é" * 300]


def job(catalogue: Catalogue, text: str, number: int) -> dict[str, Any]:
    request = JobRequest(prompt=text or "x", seed=2**64 - 1 - number, labels={"sku": text[:200]})
    row = make_job(catalogue, request, DEFAULT_TENANT, costs={"demo": 0.1 + number / 7}).columns()
    row |= {"custom_id": text[:100] or None}
    row |= {"row": number or None, "created_at": 1.7e9 + number / 3, "name": None}
    return row


def test_rows_are_the_same_as_those_bound_one_by_one(store: Store, catalogue: Catalogue) -> None:
    rows = [job(catalogue, text, number) for number, text in enumerate(NASTY)]
    twins = [row | {"id": new_id("job")} for row in rows]
    with store.write() as session:
        insert_many(session, Job, [{k: v for k, v in row.items() if k != "warnings"} for row in rows], warnings=["a", "b"])
        session.execute(insert(Job), [row | {"warnings": ["a", "b"]} for row in twins])
    columns = [column for column in Job.__table__.columns if column.name != "id"]
    with store.read() as session:
        found = {row[0]: row[1:] for row in session.execute(select(Job.id, *columns))}
    assert len(found) == 2 * len(NASTY)
    for row, twin in zip(rows, twins, strict=True):
        assert found[row["id"]] == found[twin["id"]]


def test_what_is_not_given_gets_the_tables_default(store: Store) -> None:
    with store.write() as session:
        insert_many(session, Event, [])
        insert_many(session, Event, [{"kind": "x", "subject": str(n)} for n in range(3)], at=1.5, data={"n": [1]}, tenant_id=None)
    with store.read() as session:
        events = session.scalars(select(Event).order_by(Event.id)).all()
    assert [(event.subject, event.at, event.data, event.tenant_id, event.seq) for event in events] == [
        (str(n), 1.5, {"n": [1]}, None, None) for n in range(3)
    ]
