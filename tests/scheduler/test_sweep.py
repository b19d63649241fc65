"""The sweep: what it recovers, what it leaves alone, and that repeating it does no harm."""

from __future__ import annotations

from sqlalchemy import insert, select, update

from imagefarm.states import BatchState, JobState, WorkerState
from imagefarm.store import db_now
from imagefarm.store.models import Backlog, Batch, Job, SweepState, Worker
from scheduler.sweep import sweep
from tests.small_farm import SmallFarm


def expire(farm: SmallFarm, job_id: str) -> None:
    farm.set(job_id, lease_until=farm.store.now() - 1)


def test_an_expired_lease_goes_back_to_the_queue(farm: SmallFarm) -> None:
    sweep(farm.store, farm.settings)
    farm.submit(2)
    lost, kept = farm.claim("wrk_a")
    expire(farm, lost.id)
    report = sweep(farm.store, farm.settings)
    assert report.requeued == 1
    assert sweep(farm.store, farm.settings).requeued == 0
    assert (farm.job(lost.id).state, farm.job(lost.id).crashes) == (JobState.QUEUED, 1)
    assert farm.job(kept.id).state == JobState.RUNNING
    assert report.lanes == {"demo": 1}
    farm.check_books()


def test_after_a_gap_leases_get_a_grace(farm: SmallFarm) -> None:
    sweep(farm.store, farm.settings)
    farm.submit(1)
    (job,) = farm.claim("wrk_a")
    expire(farm, job.id)
    with farm.store.write() as session:
        session.execute(update(SweepState).values(last_at=db_now() - 60))
    assert sweep(farm.store, farm.settings).waited_after_gap
    assert farm.job(job.id).state == JobState.RUNNING
    with farm.store.write() as session:
        session.execute(update(SweepState).values(reap_after=db_now() - 1))
    assert sweep(farm.store, farm.settings).requeued == 1


def test_a_job_whose_time_is_up_fails_before_it_starts(farm: SmallFarm) -> None:
    (job_id,) = farm.submit(1, expires_in=3600)
    assert sweep(farm.store, farm.settings).expired == 0
    farm.set(job_id, expires_at=farm.store.now() - 1)
    assert farm.claim("wrk_a") == []
    assert sweep(farm.store, farm.settings).expired == 1
    assert farm.job(job_id).error_code == "expired"
    farm.check_books()


def test_drift_is_found_and_put_right(farm: SmallFarm) -> None:
    farm.submit(3)
    farm.claim("wrk_a", images=1)
    with farm.store.write() as session:
        session.execute(update(Backlog).values(queued=17, running=0))
    assert sweep(farm.store, farm.settings, reconcile=True).drift == 1
    farm.check_books()
    assert sweep(farm.store, farm.settings, reconcile=True).drift == 0


def test_a_silent_worker_is_gone(farm: SmallFarm) -> None:
    worker = farm.worker("wrk_a")
    sweep(farm.store, farm.settings)
    with farm.store.write() as session:
        session.execute(update(Worker).values(heartbeat_at=db_now() - 120))
    assert sweep(farm.store, farm.settings).silent_workers == [worker]
    with farm.store.read() as session:
        assert session.get_one(Worker, worker).state == WorkerState.GONE


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
    assert sweep(farm.store, farm.settings).batches_done == 0
    farm.finish(farm.claim("wrk_a")[0])
    assert sweep(farm.store, farm.settings).batches_done == 1
    with farm.store.read() as session:
        assert session.scalar(select(Batch.state)) == BatchState.DONE
        assert session.scalar(select(Job.batch_id)) == "batch_1"
