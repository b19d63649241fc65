"""All jobs that match a filter: cancelled or retried in chunks, never more than were seen, one winner each."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import func, select

from imagefarm.errors import Conflict, LimitExceeded
from imagefarm.states import JobState
from imagefarm.store.job_access_paths import JobFilter
from imagefarm.store.models import Event
from scheduler.batches import bulk_actions
from scheduler.batches.bulk_actions import cancel_matching, retry_matching
from tests.small_farm import SmallFarm

ALL = JobFilter()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_actions, "CHUNK", 2)


def test_all_that_match_are_cancelled_and_no_other(farm: SmallFarm) -> None:
    other = farm.tenant("other")
    theirs = farm.submit(2, tenant=other)
    mugs = farm.submit(30, labels={"kind": "mug"})
    farm.submit(3, model="sd15")
    done, *running = farm.claim("wrk_a", quantum_s=100.0, images=4)
    farm.finish(done)
    wanted = JobFilter(tenant_id="tenant_default", model="demo", labels=(("kind", "mug"),))
    report = cancel_matching(farm.store, wanted, expected=30, by="me")
    assert (report.matched, report.changed, report.models) == (29, 29, {"demo"})
    assert {farm.job(job_id).state for job_id in mugs} == {JobState.CANCELLED, JobState.SUCCEEDED}
    assert {farm.job(job.id).owner for job in running} == {None}
    assert {farm.job(job_id).state for job_id in theirs} == {JobState.QUEUED}
    assert farm.states() == {"cancelled": 29, "succeeded": 1, "queued": 5}
    assert cancel_matching(farm.store, wanted, expected=30, by="me").changed == 0
    with farm.store.read() as session:
        told = session.scalar(select(func.count()).select_from(Event).where(Event.kind == "job.cancelled"))
    assert told == 29
    farm.check_books()


def test_more_than_were_seen_is_a_conflict_and_nothing_is_done(farm: SmallFarm) -> None:
    farm.submit(7)
    assert cancel_matching(farm.store, ALL, expected=None, by="me").matched == 7
    with pytest.raises(Conflict, match="more than 6"):
        cancel_matching(farm.store, ALL, expected=6, by="me")
    assert farm.states() == {"queued": 7}


def test_states_narrow_what_is_changed(farm: SmallFarm) -> None:
    farm.submit(5)
    farm.claim("wrk_a", images=2)
    report = cancel_matching(farm.store, JobFilter(states=(JobState.QUEUED,)), expected=10, by="me")
    assert report.changed == 3
    assert farm.states() == {"cancelled": 3, "running": 2}
    assert retry_matching(farm.store, JobFilter(states=(JobState.RUNNING,)), farm.settings, expected=9, by="me").matched == 0


def test_two_at_once_change_each_job_once(farm: SmallFarm) -> None:
    farm.submit(40)
    changed: list[int] = []

    def cancel() -> None:
        changed.append(cancel_matching(farm.store, ALL, expected=40, by="me").changed)

    threads = [threading.Thread(target=cancel) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(changed) == 40
    farm.check_books()


def test_failed_and_cancelled_ones_run_again(farm: SmallFarm) -> None:
    farm.submit(5)
    cancel_matching(farm.store, ALL, expected=5, by="me")
    farm.submit(1)
    report = retry_matching(farm.store, ALL, farm.settings, expected=5, by="me")
    assert report.changed == 5
    assert farm.states() == {"queued": 6}
    farm.check_books()


def test_a_retry_that_does_not_fit_the_queue_does_nothing(farm: SmallFarm) -> None:
    farm.submit(5)
    cancel_matching(farm.store, ALL, expected=5, by="me")
    narrow = farm.settings.model_copy(update={"max_queued_per_tenant": 4})
    with pytest.raises(LimitExceeded):
        retry_matching(farm.store, ALL, narrow, expected=5, by="me")
    assert farm.states() == {"cancelled": 5}
