"""The sweep: what it recovers, what it leaves alone, and that repeating it does no harm."""

from __future__ import annotations

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from imagefarm.states import BatchState, JobState, WorkerState
from imagefarm.store import Store, db_now
from imagefarm.store.models import Backlog, Batch, Event, Job, SweepState, WebhookDelivery, Worker
from scheduler.queue import lease
from scheduler.queue.finish import fail
from scheduler.queue.retry import Failure, FailureClass
from scheduler.recovery.sweep import AfterSeal, AfterSweep, InSweep, sweep
from tests.small_farm import SmallFarm, hold_where


def expire(farm: SmallFarm, job_id: str) -> None:
    farm.set(job_id, lease_until=farm.store.now() - 1)


def test_an_expired_lease_goes_back_to_the_queue(farm: SmallFarm) -> None:
    farm.sweep()
    farm.submit(2)
    lost, kept = farm.claim("wrk_a")
    expire(farm, lost.id)
    report = farm.sweep()
    assert report.requeued == 1
    assert farm.sweep().requeued == 0
    assert (farm.job(lost.id).state, farm.job(lost.id).crashes) == (JobState.QUEUED, 1)
    assert farm.job(kept.id).state == JobState.RUNNING
    assert report.lanes == {"demo": 1}
    farm.check_books()


def test_after_a_gap_leases_get_a_grace(farm: SmallFarm) -> None:
    farm.sweep()
    farm.submit(1)
    (job,) = farm.claim("wrk_a")
    expire(farm, job.id)
    with farm.store.write() as session:
        session.execute(update(SweepState).values(last_at=db_now() - 60))
    assert farm.sweep().waited_after_gap
    assert farm.job(job.id).state == JobState.RUNNING
    with farm.store.read() as session:
        (told,) = session.scalars(select(Event.data).where(Event.kind == "sweep.gap"))
    assert told["seconds"] >= 60
    with farm.store.write() as session:
        session.execute(update(SweepState).values(reap_after=db_now() - 1))
    assert farm.sweep().requeued == 1


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_jump_of_the_clock_takes_nothing_from_the_living_and_holds_nothing_for_the_dead(farm: SmallFarm, jump_s: float) -> None:
    """The clock cannot be set here, so all that is stored is moved the other way."""
    farm.sweep()
    farm.submit(3)
    kept, lost, again = farm.claim("wrk_a", images=1) + farm.claim("wrk_dead", images=1) + farm.claim("wrk_a", images=1)
    assert fail(farm.store, again, Failure(FailureClass.UNKNOWN, "error", "x"), farm.settings) == JobState.QUEUED
    farm.worker("wrk_dead")
    with farm.store.write() as session:
        session.execute(update(Job).values(lease_until=Job.lease_until - jump_s, not_before=Job.not_before - jump_s))
        session.execute(update(Worker).values(heartbeat_at=Worker.heartbeat_at - jump_s))
        session.execute(update(SweepState).values(last_at=SweepState.last_at - jump_s))
    report = farm.sweep()
    assert (report.waited_after_gap, report.clock_jumped_back) == (jump_s > 0, jump_s < 0)
    assert report.requeued == 0
    assert lease.renew(farm.store, "wrk_a", [kept.id], 30.0) == {kept.id}
    assert farm.sweep().clock_jumped_back is False
    now = farm.store.now()
    assert farm.job(again.id).not_before <= now + 60
    with farm.store.read() as session:
        assert session.get_one(SweepState, 1).reap_after <= now + farm.settings.lease_s
        assert session.get_one(Worker, "wrk_dead").heartbeat_at <= now
    expected = now + farm.settings.lease_s
    assert (farm.job(lost.id).lease_until or 0) <= expected
    with farm.store.write() as session:  # a lease later
        session.execute(update(Job).where(Job.id == lost.id).values(lease_until=Job.lease_until - farm.settings.lease_s - 1))
        session.execute(update(SweepState).values(reap_after=0.0))
    assert farm.sweep().requeued == 1
    assert (farm.job(lost.id).state, farm.job(kept.id).state) == (JobState.QUEUED, JobState.RUNNING)
    farm.check_books()


def test_after_a_clock_jump_back_deliveries_and_the_grace_come_near_again(farm: SmallFarm) -> None:
    farm.sweep()
    now = farm.store.now()
    with farm.store.write() as session:
        message = {"webhook_id": "hook_1", "tenant_id": "tenant_default", "kind": "batch.done", "body": "{}", "created_at": now}
        for delivery_id, state in (("waits", "waiting"), ("done", "delivered")):
            session.execute(insert(WebhookDelivery).values(id=delivery_id, state=state, next_at=now + 3630, **message))
        session.execute(update(SweepState).values(last_at=now + 3600, reap_after=now + 3600))
    assert farm.sweep().clock_jumped_back
    with farm.store.read() as session:
        next_at = dict(session.execute(select(WebhookDelivery.id, WebhookDelivery.next_at)).all())
        assert session.get_one(SweepState, 1).reap_after <= farm.store.now() + farm.settings.lease_s
        (told,) = session.scalars(select(Event.data).where(Event.kind == "sweep.clock"))
    assert next_at["waits"] == pytest.approx(now + 30, abs=20)
    assert next_at["done"] == now + 3630
    assert told["back_s"] == pytest.approx(3600, abs=20)


def test_a_job_whose_time_is_up_fails_before_it_starts(farm: SmallFarm) -> None:
    (job_id,) = farm.submit(1, expires_in=3600)
    assert farm.sweep().expired == 0
    farm.set(job_id, expires_at=farm.store.now() - 1)
    assert farm.claim("wrk_a") == []
    assert farm.sweep().expired == 1
    assert farm.job(job_id).error_code == "expired"
    assert farm.job(job_id).error_detail == "its time was up before a worker could start it"
    farm.check_books()


def test_a_job_whose_time_is_up_while_it_is_held_or_waits_for_another_try_fails_too(farm: SmallFarm) -> None:
    held, again = farm.submit(2, expires_in=3600)
    with farm.store.write() as session:
        hold_where(session, [Job.id == held], by="test")
    (job,) = farm.claim("wrk_a")
    assert job.id == again
    fail(farm.store, job, Failure(FailureClass.UNKNOWN, "error", "x"), farm.settings)
    for job_id in (held, again):
        farm.set(job_id, expires_at=farm.store.now() - 1)
    assert farm.sweep().expired == 2
    assert [farm.job(job_id).error_code for job_id in (held, again)] == ["expired", "expired"]
    assert "an earlier attempt did not end well" in (farm.job(again).error_detail or "")
    farm.check_books()


def test_a_job_that_began_in_time_may_take_as_long_as_it_takes(farm: SmallFarm) -> None:
    farm.submit(1, expires_in=3600)
    (job,) = farm.claim("wrk_a")
    farm.set(job.id, expires_at=farm.store.now() - 1)
    assert farm.sweep().expired == 0
    assert lease.renew(farm.store, "wrk_a", [job.id], 30.0) == {job.id}
    farm.finish(job)
    assert farm.job(job.id).state == JobState.SUCCEEDED
    farm.check_books()


def test_drift_is_found_and_put_right(farm: SmallFarm) -> None:
    farm.submit(3)
    farm.claim("wrk_a", images=1)
    with farm.store.write() as session:
        session.execute(update(Backlog).values(queued=17, running=0))
    assert farm.sweep(reconcile=True).drift == 1
    farm.check_books()
    assert farm.sweep(reconcile=True).drift == 0
    with farm.store.read() as session:
        assert session.get_one(SweepState, 1).drift == 1
        assert session.scalars(select(Event.data).where(Event.kind == "backlog.drift")).all() == [{"rows": 1}]


def test_a_stale_worker_is_offline(farm: SmallFarm) -> None:
    worker = farm.worker("wrk_a")
    farm.sweep()
    for silent_s, found in ((farm.settings.lease_s - 10, []), (farm.settings.lease_s + 1, [worker])):
        with farm.store.write() as session:
            session.execute(update(Worker).values(heartbeat_at=db_now() - silent_s))
        assert farm.sweep().stale_workers == found, silent_s
    with farm.store.read() as session:
        assert session.get_one(Worker, worker).state == WorkerState.OFFLINE


def test_a_batch_is_done_when_its_last_job_has_ended(farm: SmallFarm) -> None:
    with farm.store.write() as session:
        session.execute(
            insert(Batch).values(
                id="batch_1",
                tenant_id="tenant_default",
                name="b",
                state=BatchState.QUEUED,
                template="",
                options={},
                rows=1,
                accepted=1,
                rejected=0,
                errors=[],
                created_at=db_now(),
            )
        )
    (job_id,) = farm.submit(1)
    farm.set(job_id, batch_id="batch_1")
    assert farm.sweep().steps["batches_done"] == 0
    farm.finish(farm.claim("wrk_a")[0])
    assert farm.sweep().steps["batches_done"] == 1
    with farm.store.read() as session:
        assert session.scalar(select(Batch.state)) == BatchState.DONE
        assert session.scalar(select(Job.batch_id)) == "batch_1"


def test_each_step_runs_in_its_transaction_and_its_number_is_reported(farm: SmallFarm) -> None:
    (job_id,) = farm.submit(1)
    seen: list[str] = []

    def in_sweep(session: Session, now: float) -> int:
        state = session.get_one(SweepState, 1)
        assert state.last_at == now, "the sweep has not committed yet"
        seen.append("in")
        return 1

    def after_sweep(store: Store) -> int:
        with store.write() as session:
            seen.append("after")
            assert session.scalar(select(func.count()).select_from(Event).where(Event.seq.is_(None)))
        return 2

    def after_seal(session: Session) -> int:
        seen.append("sealed")
        assert session.scalar(select(Event.seq).where(Event.subject == job_id)) is not None
        return 3

    steps = (AfterSeal("c", after_seal), AfterSweep("b", after_sweep), InSweep("a", in_sweep))
    assert sweep(farm.store, farm.settings, steps).steps == {"a": 1, "b": 2, "c": 3}
    assert seen == ["in", "after", "sealed"]


def test_a_step_that_fails_undoes_the_sweep(farm: SmallFarm) -> None:
    def broken(session: Session, now: float) -> int:
        raise RuntimeError("a mistake of a step")

    with pytest.raises(RuntimeError, match="a mistake"):
        sweep(farm.store, farm.settings, [InSweep("broken", broken)])
    with farm.store.read() as session:
        assert not session.get_one(SweepState, 1).last_at
