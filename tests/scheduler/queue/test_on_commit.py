"""Hooks in the transaction that commits a job's images: they lock before the job, act after the images, or roll all back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from imagefarm.errors import LeaseLost
from imagefarm.states import JobState
from imagefarm.store.models import Image, Job
from scheduler.queue.cancel import cancel_job
from scheduler.queue.claim import ClaimedJob
from tests.small_farm import SmallFarm


class Recorder:
    """Notes what the transaction holds at each call, and may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, str, int]] = []
        self.error = error

    def lock(self, session: Session) -> None:
        state = session.scalar(select(Job.state)) or ""
        self.calls.append(("lock", state, session.scalar(select(func.count(Image.id))) or 0))

    def apply(self, session: Session, job: Job, images: Sequence[Image]) -> None:
        self.calls.append(("apply", job.state, len(images)))
        assert [image.index for image in images] == [0, 1]
        images[0].scores = {"seen": True}
        if self.error is not None:
            raise self.error


@pytest.fixture
def job(farm: SmallFarm) -> ClaimedJob:
    farm.submit(1, count=2)
    return farm.claim("wrk_a")[0]


def test_it_locks_before_the_job_and_acts_on_its_images(farm: SmallFarm, job: ClaimedJob) -> None:
    recorder = Recorder()
    ids = farm.finish(job, on_commit=recorder)
    assert recorder.calls == [("lock", JobState.RUNNING, 0), ("apply", JobState.SUCCEEDED, 2)]
    with farm.store.read() as session:
        assert session.get_one(Image, ids[0]).scores == {"seen": True}
    farm.check_books()


def test_its_error_undoes_the_images_and_the_success(farm: SmallFarm, job: ClaimedJob) -> None:
    with pytest.raises(RuntimeError, match="no verdict"):
        farm.finish(job, on_commit=Recorder(RuntimeError("no verdict")))
    assert (farm.job(job.id).state, farm.images(job.id)) == (JobState.RUNNING, 0)
    farm.check_books()


def test_it_does_not_act_on_a_job_that_was_lost(farm: SmallFarm, job: ClaimedJob) -> None:
    cancel_job(farm.store, job.id, job.tenant_id)
    recorder = Recorder()
    with pytest.raises(LeaseLost):
        farm.finish(job, on_commit=recorder)
    assert [call[0] for call in recorder.calls] == ["lock"]
    assert farm.images(job.id) == 0


def test_it_acts_once_when_the_answer_of_the_commit_was_lost(farm: SmallFarm, job: ClaimedJob) -> None:
    recorder = Recorder()
    ids = farm.finish(job, on_commit=recorder)
    assert farm.finish(job, on_commit=recorder) == ids
    assert [call[0] for call in recorder.calls].count("apply") == 1
