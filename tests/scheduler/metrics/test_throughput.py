"""The throughput of a lane, and the time at which its queued jobs will be done."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from imagefarm.store.models import Image
from scheduler.metrics.throughput import IDLE, LOOK_BACK_S, Throughput, lane_throughput
from tests.small_farm import SmallFarm


def test_what_was_made_in_the_last_minutes_counts(farm: SmallFarm) -> None:
    farm.submit(3, count=2)
    jobs = farm.claim("wrk_a", images=6, quantum_s=100.0)
    for job in jobs:
        farm.finish(job)
    with farm.store.write() as session:
        old = session.scalars(select(Image.id).where(Image.job_id == jobs[0].id)).all()
        session.execute(update(Image).where(Image.id.in_(old)).values(created_at=Image.created_at - LOOK_BACK_S - 1))
    with farm.store.read() as session:
        throughputs = lane_throughput(session, farm.store.now())
    assert throughputs == {"demo": Throughput(jobs=2 / 5, images=4 / 5)}
    assert throughputs["demo"].drain_s(4) == pytest.approx(600)
    assert (throughputs["demo"].drain_s(0), IDLE.drain_s(4)) == (None, None)
