"""Workers as the farm sees them: what of them lasts from one incarnation to the next, and how their end is noticed."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from imagefarm.errors import NotFound
from imagefarm.states import JobState, WorkerState
from imagefarm.store import db_now
from imagefarm.store.models import Event, Worker
from scheduler.queue.workers import (
    DRAINED_RETENTION_S,
    OFFLINE_RETENTION_S,
    WorkerIdentity,
    heartbeat,
    mark_offline,
    register,
    send_command,
    set_desired_state,
)
from tests.small_farm import SmallFarm


def start(farm: SmallFarm, incarnation: str, **more: object) -> None:
    told = {"name": "w1", "host": "rack", "pid": 7, "device": "cuda:0", "version": "0.1.0", "serves": farm.serves}
    register(farm.store, WorkerIdentity(id=incarnation, **{**told, **more}))  # type: ignore[arg-type]


def row(farm: SmallFarm, incarnation: str) -> Worker:
    with farm.store.read() as session:
        return session.get_one(Worker, incarnation)


def told(farm: SmallFarm, incarnation: str) -> list[tuple[str, str | None]]:
    with farm.store.read() as session:
        events = session.scalars(select(Event).where(Event.subject == incarnation).order_by(Event.id))
        return [(event.kind, event.data.get("reason")) for event in events]


@pytest.mark.parametrize("desired_state", [WorkerState.DRAINING, WorkerState.QUARANTINED])
def test_a_new_incarnation_is_as_the_last_one_was_told_to_be(farm: SmallFarm, desired_state: WorkerState) -> None:
    start(farm, "wrk_1")
    set_desired_state(farm.store, "w1", desired_state, by="ops", reason="new fan")
    mark_offline(farm.store, "wrk_1", farm.settings, "restarted", clean=True)
    start(farm, "wrk_2", facts={"device_name": "H100"})
    assert (row(farm, "wrk_2").desired_state, row(farm, "wrk_2").reason) == (desired_state, "new fan")
    assert (row(farm, "wrk_2").version, row(farm, "wrk_2").facts) == ("0.1.0", {"device_name": "H100"})
    farm.submit(1)
    assert farm.claim("wrk_2") == []
    assert set_desired_state(farm.store, "w1", WorkerState.READY, by="ops") == ["wrk_2"], "the one that lives"
    assert len(farm.claim("wrk_2")) == 1
    start(farm, "wrk_other", name="w2")
    assert row(farm, "wrk_other").desired_state == WorkerState.READY
    start(farm, "wrk_3")
    assert row(farm, "wrk_3").desired_state == WorkerState.READY, "as the last one was, not as the first"
    set_desired_state(farm.store, "wrk_3", desired_state, by="ops")
    start(farm, "wrk_third", name="w3")
    assert row(farm, "wrk_third").desired_state == WorkerState.READY, "it is another"
    with pytest.raises(NotFound):
        set_desired_state(farm.store, "wrk_1", WorkerState.READY, by="ops")


def test_why_one_ended_is_not_said_of_the_next(farm: SmallFarm) -> None:
    start(farm, "wrk_1")
    mark_offline(farm.store, "wrk_1", farm.settings, "its process ended with signal 9", clean=False)
    assert row(farm, "wrk_1").reason == "its process ended with signal 9"
    start(farm, "wrk_2")
    assert (row(farm, "wrk_2").desired_state, row(farm, "wrk_2").reason) == (WorkerState.READY, "")


def test_its_life_is_told(farm: SmallFarm) -> None:
    start(farm, "wrk_1")
    set_desired_state(farm.store, "wrk_1", WorkerState.DRAINING, by="ops", reason="new fan")
    mark_offline(farm.store, "wrk_1", farm.settings, "it was stopped", clean=True)
    mark_offline(farm.store, "wrk_1", farm.settings, "again", clean=False)
    assert told(farm, "wrk_1") == [
        ("worker.started", None),
        ("worker.draining", "new fan"),
        ("worker.offline", "it was stopped"),
    ]
    start(farm, "wrk_2")
    with farm.store.write() as session:
        session.execute(update(Worker).where(Worker.id == "wrk_2").values(heartbeat_at=db_now() - 120))
    farm.sweep()
    assert told(farm, "wrk_2") == [("worker.started", None), ("worker.offline", "heartbeat_timeout")]


def test_one_that_died_gives_its_jobs_back_and_one_that_left_had_none(farm: SmallFarm) -> None:
    start(farm, "wrk_1")
    (job_id,) = farm.submit(1)
    farm.claim("wrk_1")
    assert mark_offline(farm.store, "wrk_1", farm.settings, "its process ended with signal 9", clean=False) == 1
    assert (farm.job(job_id).state, farm.job(job_id).crashes) == (JobState.QUEUED, 1)
    start(farm, "wrk_2")
    farm.claim("wrk_2")
    assert mark_offline(farm.store, "wrk_2", farm.settings, "it was stopped", clean=True) == 0
    assert (farm.job(job_id).state, farm.job(job_id).crashes) == (JobState.RUNNING, 1), "if it could not, its lease runs out"
    farm.check_books()


def test_one_that_was_only_silent_comes_back(farm: SmallFarm) -> None:
    start(farm, "wrk_1")
    with farm.store.write() as session:
        session.execute(update(Worker).values(heartbeat_at=db_now() - 120))
    assert farm.sweep().stale_workers == ["wrk_1"]
    heartbeat(farm.store, "wrk_1", WorkerState.BUSY, resident=["demo"], load={"phase": "step"})
    back = row(farm, "wrk_1")
    assert (back.state, back.resident, back.load) == (WorkerState.BUSY, ["demo"], {"phase": "step"})
    assert farm.sweep().stale_workers == []


def test_one_that_is_offline_stays_on_the_page_for_an_hour(farm: SmallFarm) -> None:
    start(farm, "wrk_1")
    mark_offline(farm.store, "wrk_1", farm.settings, "stopped", clean=True)
    farm.sweep()
    assert row(farm, "wrk_1").reason == "stopped"
    with farm.store.write() as session:
        session.execute(update(Worker).values(heartbeat_at=db_now() - OFFLINE_RETENTION_S - 1))
    farm.sweep()
    with farm.store.read() as session:
        assert session.get(Worker, "wrk_1") is None


def test_what_an_operator_wants_of_one_outlasts_its_absence(farm: SmallFarm) -> None:
    """A machine that is switched off over the weekend, while its worker is in quarantine."""
    start(farm, "wrk_1")
    set_desired_state(farm.store, "w1", WorkerState.QUARANTINED, by="ops", reason="new fan")
    mark_offline(farm.store, "wrk_1", farm.settings, "stopped", clean=True)

    def later(seconds: float) -> None:
        with farm.store.write() as session:
            session.execute(update(Worker).where(Worker.id == "wrk_1").values(heartbeat_at=db_now() - seconds))
        farm.sweep()

    later(OFFLINE_RETENTION_S + 1)
    start(farm, "wrk_2")
    assert (row(farm, "wrk_2").desired_state, row(farm, "wrk_2").reason) == (WorkerState.QUARANTINED, "new fan")
    later(OFFLINE_RETENTION_S + 1)
    with farm.store.read() as session:
        assert session.get(Worker, "wrk_1") is None, "its next incarnation knows"
        assert session.get(Worker, "wrk_2") is not None
    mark_offline(farm.store, "wrk_2", farm.settings, "stopped", clean=True)
    with farm.store.write() as session:
        session.execute(update(Worker).values(heartbeat_at=db_now() - DRAINED_RETENTION_S - 1))
    farm.sweep()
    with farm.store.read() as session:
        assert session.get(Worker, "wrk_2") is None, "the row is deleted in the end"


def test_an_order_is_heard_once(farm: SmallFarm) -> None:
    start(farm, "wrk_1")
    send_command(farm.store, "warm", "demo", by="ops")
    send_command(farm.store, "unload", "sd15", by="ops")
    desired_state, commands = heartbeat(farm.store, "wrk_1", WorkerState.READY, resident=[], load={})
    assert (desired_state, commands) == ("ready", [{"do": "warm", "model": "demo"}, {"do": "unload", "model": "sd15"}])
    assert heartbeat(farm.store, "wrk_1", WorkerState.READY, resident=[], load={}) == ("ready", [])
    with farm.store.read() as session:
        told = session.scalars(select(Event.data).where(Event.kind == "worker.command").order_by(Event.id)).all()
    assert told == [{"do": "warm", "model": "demo", "by": "ops"}, {"do": "unload", "model": "sd15", "by": "ops"}]
