"""Each change of a job's state is an audit event of the same transaction, and a live event after it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from imagefarm.states import JobState
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Event, Job
from scheduler.queue import cancel, finish, lease, submit_sql
from scheduler.queue.claim import ClaimedJob
from scheduler.queue.new_job import make_job
from scheduler.queue.retry import Failure, FailureClass
from tests.small_farm import SmallFarm, hold_where, release_held_where

UNKNOWN = Failure(FailureClass.UNKNOWN, "error", "x")
INPUT = Failure(FailureClass.INPUT, "bad_picture", "x")


def test_a_whole_life_is_recorded_in_the_audit_and_live(farm: SmallFarm) -> None:
    heard: list[dict[str, Any]] = []
    farm.store.listener = heard.extend
    (job_id,) = farm.submit(1, expires_in=3600)
    this = [Job.id == job_id]

    def claim() -> ClaimedJob:
        farm.set(job_id, not_before=0.0)
        (job,) = farm.claim("wrk_a")
        return job

    def in_a_transaction(change: Any) -> None:
        with farm.store.write() as session:
            assert len(change(session, this, by="a person")) == 1

    finish.release(farm.store, [claim()], "drain")
    finish.fail(farm.store, claim(), UNKNOWN, farm.settings)
    claim()
    lease.expire_owner(farm.store, "wrk_a", farm.settings, "killed")
    in_a_transaction(hold_where)
    in_a_transaction(release_held_where)
    cancel.cancel_job(farm.store, job_id, DEFAULT_TENANT)
    in_a_transaction(cancel.retry_where)
    finish.fail(farm.store, claim(), INPUT, farm.settings)
    in_a_transaction(cancel.retry_where)
    farm.set(job_id, expires_at=1.0)
    farm.sweep()
    in_a_transaction(cancel.retry_where)
    (image_id,) = farm.finish(claim())
    with farm.store.read() as session:
        events = session.scalars(select(Event).where(Event.subject == job_id).order_by(Event.id)).all()
        stored = session.scalars(select(Event).where(Event.subject == image_id)).all()
    recorded = [(event.kind.removeprefix("job."), event.data.get("reason")) for event in events]
    assert recorded == [
        ("submitted", None),
        ("claimed", None),
        ("released", "drain"),
        ("claimed", None),
        ("requeued", "error"),
        ("claimed", None),
        ("requeued", "crashed"),
        ("held", None),
        ("hold_released", None),
        ("cancelled", None),
        ("retried", None),
        ("claimed", None),
        ("failed", "bad_picture"),
        ("retried", None),
        ("failed", "expired"),
        ("retried", None),
        ("claimed", None),
        ("succeeded", None),
    ]
    assert [event.data.get("attempt") for event in events] == [None, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5, 5]
    assert [(event.kind, event.data["job"]) for event in stored] == [("image.stored", job_id)]
    live = [(event["kind"], event["data"]) for event in heard if event["subject"] == job_id]
    assert live == [(event.kind, event.data) for event in events]
    assert {event.tenant_id for event in events} == {DEFAULT_TENANT}
    farm.check_books()


def change_and_break(farm: SmallFarm, job_id: str, what: str) -> None:
    change = {"cancel": cancel.cancel_where, "hold": hold_where}[what]
    with farm.store.write() as session:
        assert len(change(session, [Job.id == job_id], by="x")) == 1
        raise RuntimeError("no")


@pytest.mark.parametrize("what", ["cancel", "hold"])
def test_a_change_that_is_not_committed_is_told_to_nobody(farm: SmallFarm, what: str) -> None:
    (job_id,) = farm.submit(1)
    heard: list[dict[str, Any]] = []
    farm.store.listener = heard.extend
    with pytest.raises(RuntimeError, match="no"):
        change_and_break(farm, job_id, what)
    with farm.store.read() as session:
        kinds = session.scalars(select(Event.kind).where(Event.subject == job_id)).all()
    assert (kinds, heard, farm.job(job_id).state) == (["job.submitted"], [], JobState.QUEUED)
    farm.check_books()


def test_a_single_submit_is_told_as_many_are(farm: SmallFarm) -> None:
    from imagefarm.recipe import JobRequest

    heard: list[dict[str, Any]] = []
    farm.store.listener = heard.extend
    new = make_job(farm.catalogue, JobRequest(prompt="a cup", expires_in=60), DEFAULT_TENANT, costs={})
    with farm.store.write() as session:
        context = submit_sql.read_submit_context(session, DEFAULT_TENANT, new.model, None)
        submit_sql.write(session, submit_sql.check(session, new, context, farm.settings, None), None)
        assert heard == []
    (other,) = farm.submit(1)
    table = farm.submit(3)
    assert [event["kind"] for event in heard] == ["job.submitted"] * 5
    with farm.store.read() as session:
        recorded = session.scalars(select(Event).where(Event.kind == "job.submitted").order_by(Event.id)).all()
        job = session.get_one(Job, new.id)
    assert [event.subject for event in recorded] == [event["subject"] for event in heard]
    assert [event.subject for event in recorded[:2]] == [new.id, other]
    assert {event.subject for event in recorded[2:]} == set(table)
    assert all(set(event.data) == {"recipe_hash", "model"} for event in recorded)
    assert job.expires_at == pytest.approx(job.created_at + 60)
    farm.check_books()
