"""The rollup: counted once and again with one result, hours from minutes, percentiles near the true ones, old rows gone."""

from collections import Counter

from sqlalchemy import insert, select, update

from imagefarm.store import db_now
from imagefarm.store.models import Attempt, Image, Job, Rollup
from scheduler.metrics.rollup import HOUR, KEEP_S, MAX_MINUTES, MINUTE, bucket_of, count_load, quantile, roll, step_of
from tests.small_farm import SmallFarm


def rows(farm: SmallFarm, step: int) -> list[Rollup]:
    with farm.store.read() as session:
        return list(session.scalars(select(Rollup).where(Rollup.step == step).order_by(Rollup.at)))


def done(farm: SmallFarm, number: int, *, images: int = 1) -> None:
    farm.submit(number, count=images)
    while claimed := farm.claim("worker_1", images=64):
        for job in claimed:
            farm.finish(job)


def test_a_minute_is_counted_when_it_is_over_and_again_to_the_same(farm: SmallFarm) -> None:
    farm.worker("worker_1")
    done(farm, 3, images=2)
    now = farm.store.now()
    with farm.store.write() as session:
        count_load(session)
        count_load(session)
        assert roll(session, now - 60) <= 1
        assert roll(session, now + 70) >= 1
    counted = rows(farm, MINUTE)
    assert sum(row.images for row in counted) == 6
    assert sum(row.loads for row in counted) == 2
    assert sum(bucket_of(row).wait.total() for row in counted) == 3
    hours = rows(farm, HOUR)
    assert sum(row.images for row in hours) == 6
    assert sum(row.loads for row in hours) == 2
    with farm.store.write() as session:
        assert roll(session, now + 70) == 0
        session.execute(update(Rollup).where(Rollup.step == MINUTE).values(counted=False))
        roll(session, now + 70)
    again = rows(farm, MINUTE)
    assert [(row.at, row.images, row.loads, row.wait) for row in again] == [
        (row.at, row.images, row.loads, row.wait) for row in counted
    ]


def test_failures_are_counted_where_they_ended(farm: SmallFarm) -> None:
    farm.worker("worker_1")
    job = farm.submit()[0]
    with farm.store.write() as session:
        times = {"claimed_at": db_now(), "ended_at": db_now()}
        for attempt, outcome in enumerate(("crashed", "failed", "succeeded"), 1):
            session.execute(insert(Attempt).values(job_id=job, attempt=attempt, owner="worker_1", outcome=outcome, **times))
        roll(session, (farm.store.now() // 60 + 1) * 60 + 10)
    assert sum(row.failures for row in rows(farm, MINUTE)) == 2


def test_a_long_absence_is_caught_up_a_piece_at_a_time_and_old_rows_go(farm: SmallFarm) -> None:
    farm.worker("worker_1")
    done(farm, 1)
    now = farm.store.now()
    with farm.store.write() as session:
        session.add(Rollup(step=MINUTE, at=int(now // 60) * 60 - 300 * MINUTE, counted=True))
        session.add(Rollup(step=MINUTE, at=int((now - KEEP_S[MINUTE]) // 60) * 60 - 600, counted=True))
        assert roll(session, now) == MAX_MINUTES
        assert roll(session, now) == MAX_MINUTES
        assert 0 < roll(session, now + 70) < MAX_MINUTES
    counted = rows(farm, MINUTE)
    assert counted[0].at > now - KEEP_S[MINUTE] - 60
    assert sum(row.images for row in counted) == 1


def test_percentiles_are_near_the_true_ones() -> None:
    waits = [0.02 * 1.013**number for number in range(1000)]
    histogram = Counter(step_of(wait) for wait in waits)
    for part in (0.5, 0.95):
        told, true = quantile(histogram, part), waits[int(part * 1000)]
        assert told is not None
        assert abs(told / true - 1) < 0.07
    assert quantile(Counter(), 0.5) is None
    assert step_of(0.0) == 0


def test_an_hour_of_many_jobs_reads_only_its_own_pictures(farm: SmallFarm) -> None:
    farm.worker("worker_1")
    done(farm, 2)
    with farm.store.write() as session:  # long ago, by the database's clock: the id alone does not count it
        session.execute(update(Image).values(created_at=Image.created_at - 7200))
        session.execute(update(Job).values(finished_at=Job.finished_at - 7200))
        session.add(Rollup(step=MINUTE, at=int(farm.store.now() // 60) * 60 - 120, counted=True))
        roll(session, (farm.store.now() // 60 + 1) * 60 + 10)
    assert sum(row.images for row in rows(farm, MINUTE)) == 0
