"""Cancel, hold and retry: one winner, whatever the stage."""

from __future__ import annotations

import threading

import pytest

from imagefarm.errors import Conflict, LeaseLost, NotFound
from imagefarm.states import JobState
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Job
from scheduler.queue.cancel import cancel_job, retry_where
from tests.small_farm import SmallFarm, hold_where, release_held_where


def cancel(farm: SmallFarm, job_id: str, tenant: str = DEFAULT_TENANT) -> bool:
    return cancel_job(farm.store, job_id, tenant)


def test_a_waiting_job_is_cancelled_once(farm: SmallFarm) -> None:
    (job_id,) = farm.submit(1)
    assert cancel(farm, job_id) is True
    assert cancel(farm, job_id) is False
    assert farm.claim("wrk_a") == []
    farm.check_books()


def test_a_running_job_is_cancelled_and_its_worker_fenced_off(farm: SmallFarm) -> None:
    farm.submit(2)
    victim, neighbour = farm.claim("wrk_a")
    assert cancel(farm, victim.id)
    with pytest.raises(LeaseLost):
        farm.finish(victim)
    farm.finish(neighbour)
    assert farm.states() == {"cancelled": 1, "succeeded": 1}
    assert farm.images(victim.id) == 0
    farm.check_books()


def test_a_finished_job_cannot_be_cancelled(farm: SmallFarm) -> None:
    farm.submit(1)
    (job,) = farm.claim("wrk_a")
    farm.finish(job)
    with pytest.raises(Conflict, match="already succeeded"):
        cancel(farm, job.id)


def test_another_tenants_job_does_not_exist(farm: SmallFarm) -> None:
    (job_id,) = farm.submit(1)
    with pytest.raises(NotFound):
        cancel(farm, job_id, farm.tenant("other"))
    assert farm.job(job_id).state == JobState.QUEUED


def test_cancel_against_finish_has_one_winner(farm: SmallFarm) -> None:
    for _ in range(15):
        farm.submit(1)
        (job,) = farm.claim("wrk_a")
        results: dict[str, bool] = {}
        gate = threading.Barrier(2)

        def finish(job=job, gate=gate, results=results) -> None:  # type: ignore[no-untyped-def]
            gate.wait()
            try:
                farm.finish(job)
                results["finished"] = True
            except LeaseLost:
                results["finished"] = False

        def stop(job=job, gate=gate, results=results) -> None:  # type: ignore[no-untyped-def]
            gate.wait()
            try:
                results["cancelled"] = cancel(farm, job.id)
            except Conflict:
                results["cancelled"] = False

        threads = [threading.Thread(target=finish), threading.Thread(target=stop)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results["finished"] != results["cancelled"]
        assert farm.images(job.id) == int(results["finished"])
        expected = JobState.SUCCEEDED if results["finished"] else JobState.CANCELLED
        assert farm.job(job.id).state == expected
    farm.check_books()


def test_hold_unhold_and_retry(farm: SmallFarm) -> None:
    ids = farm.submit(3)
    with farm.store.write() as session:
        assert len(hold_where(session, [Job.id.in_(ids)], by="pause")) == 3
    assert farm.claim("wrk_a") == []
    cancel(farm, ids[0])
    with farm.store.write() as session:
        assert len(release_held_where(session, [Job.id.in_(ids)], by="resume")) == 2
        assert len(retry_where(session, [Job.id.in_(ids)], by="retry")) == 1
    assert len(farm.claim("wrk_a")) == 3
    farm.check_books()
