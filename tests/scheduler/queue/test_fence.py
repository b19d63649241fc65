"""The fence: a later write of an attempt needs the job, the attempt's number and the owner, each of them; and what an attempt
leaves when it is given back: the job as it was before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from imagefarm.errors import LeaseLost
from imagefarm.states import JobState
from imagefarm.store.models import Flow, FlowClass, Job
from scheduler.queue.claim import ClaimedJob
from scheduler.queue.finish import fail, release
from scheduler.queue.lease import expire_owner, renew
from scheduler.queue.retry import Failure, FailureClass
from scheduler.queue.transition import change_state
from tests.small_farm import SmallFarm

UNKNOWN = Failure(FailureClass.UNKNOWN, "error", "x")


def columns(farm: SmallFarm, job_id: str) -> dict[str, Any]:
    with farm.store.read() as session:
        return dict(session.execute(select(Job.__table__).where(Job.id == job_id)).mappings().one())


@pytest.mark.parametrize("wrong", [{"attempt": 1}, {"owner": "wrk_b"}], ids=str)
def test_no_write_passes_with_a_part_of_the_fence(farm: SmallFarm, wrong: dict[str, Any]) -> None:
    """The first attempt is the same worker's: it was frozen, lost its lease, and claimed the job again."""
    (job_id,) = farm.submit(1)
    farm.claim("wrk_a")
    assert expire_owner(farm.store, "wrk_a", farm.settings, "its lease ran out") == 1
    (job,) = farm.claim("wrk_a")
    before, stranger = columns(farm, job_id), replace(job, **wrong)
    with pytest.raises(LeaseLost):
        farm.finish(stranger)
    assert fail(farm.store, stranger, UNKNOWN, farm.settings) is None
    release(farm.store, [stranger], "drain")
    assert columns(farm, job_id) == before
    assert farm.images(job_id) == 0
    farm.finish(job)
    farm.check_books()


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.RUNNING])
def test_nothing_is_written_to_a_job_that_does_not_run(farm: SmallFarm, state: JobState) -> None:
    (job_id,) = farm.submit(1)
    (job,) = farm.claim("wrk_a")
    farm.set(job_id, state=state)  # and the owner stays, as no change of state would leave it
    before = columns(farm, job_id)
    with pytest.raises(LeaseLost):
        farm.finish(job)
    assert fail(farm.store, job, UNKNOWN, farm.settings) is None
    release(farm.store, [job], "drain")
    assert renew(farm.store, "wrk_a", [job_id], 30.0) == set()
    assert columns(farm, job_id) == before


@pytest.mark.parametrize("crashes", [0, 2])
def test_what_is_given_back_is_as_it_was_before_its_claim(farm: SmallFarm, crashes: int) -> None:
    (job_id,) = farm.submit(1, expires_in=3600)
    farm.set(job_id, crashes=crashes, not_before=5.0, rank=3)
    before = columns(farm, job_id)
    (job,) = farm.claim("wrk_a")
    release(farm.store, [job], "drain")
    assert columns(farm, job_id) == before | {"attempt": 1, "started_at": columns(farm, job_id)["started_at"]}
    farm.check_books()


def shares(farm: SmallFarm) -> list[float]:
    with farm.store.read() as session:
        return [*session.scalars(select(Flow.pass_).order_by(Flow.tenant_id)), *session.scalars(select(FlowClass.pass_))]


@pytest.mark.parametrize("how", ["released", "failed"])
def test_who_got_nothing_pays_nothing(farm: SmallFarm, how: str) -> None:
    (job_id,) = farm.submit(1)
    (job,) = farm.claim("wrk_a")
    paid = shares(farm)
    if how == "released":
        release(farm.store, [job], "drain")
    else:
        fail(farm.store, job, UNKNOWN, farm.settings)
    returned = [before - after for before, after in zip(paid, shares(farm), strict=True)]
    assert job.id == job_id
    assert max(returned) == pytest.approx(job.cost_s), "the tenant's"
    assert sum(1 for each in returned if each) == 2, "the tenant's and its class's"


def test_a_job_pays_what_it_took(farm: SmallFarm) -> None:
    farm.submit(1)
    (job,) = farm.claim("wrk_a")
    paid = shares(farm)
    farm.finish(job, actual_s=job.cost_s + 7.0)
    assert max(after - before for before, after in zip(paid, shares(farm), strict=True)) == pytest.approx(7.0)


def test_a_second_end_of_a_list_changes_only_what_is_still_held(farm: SmallFarm) -> None:
    farm.submit(2)
    jobs: list[ClaimedJob] = farm.claim("wrk_a")
    farm.finish(jobs[0])
    release(farm.store, jobs, "drain")
    assert [farm.job(job.id).state for job in jobs] == [JobState.SUCCEEDED, JobState.QUEUED]
    farm.check_books()


@pytest.mark.parametrize(("before", "after"), [("succeeded", "queued"), ("queued", "succeeded"), ("held", "running")])
def test_no_change_passes_that_may_not_follow(farm: SmallFarm, before: str, after: str) -> None:
    (job_id,) = farm.submit(1)
    farm.set(job_id, state=before)
    with farm.store.write() as session, pytest.raises(ValueError, match=f"{after} may not follow {before}"):
        change_state(session, [Job.id == job_id], JobState(before), JobState(after), event="job.test")
    assert farm.job(job_id).state == before
