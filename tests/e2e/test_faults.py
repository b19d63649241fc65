"""kill -9 in the middle of a batch: it ends with every picture exactly once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, select

from imagefarm import Client
from imagefarm.store.models import Image, Job
from tests.e2e.up import START_S, Up
from tests.waiting import until

ROWS = 20


@pytest.mark.parametrize("victim", ["child", "worker"])
def test_a_killed_worker_loses_and_doubles_nothing(farm: Up, client: Client, tmp_path: Path, victim: str) -> None:
    table = tmp_path / "table.csv"
    table.write_text("sku,product\n" + "".join(f"S-{number},a red mug\n" for number in range(ROWS)))
    # many steps, so that the kill comes in the middle
    batch = client.batches.submit(table, template="{{ product }}, white background", model="demo", steps=30, name=victim)
    parent = farm.find("worker.service")
    child = next(process for process in parent.children() if "spawn_main" in " ".join(process.cmdline()))
    until(lambda: any(job.progress.step > 1 for job in client.jobs.list(batch=batch.id, state="running")), "a step", START_S)
    assert client.batches.get(batch).counts.succeeded < ROWS, "it was over before it could be disturbed"
    os.kill(child.pid if victim == "child" else parent.pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(child.pid), "the end of the child")
    done = client.batches.wait(batch, timeout_s=START_S)
    assert (done.counts.succeeded, done.counts.failed) == (ROWS, 0)
    store = farm.store()
    with store.read() as session:
        jobs = session.scalars(select(Job).where(Job.batch_id == batch.id)).all()
        pictures = session.execute(
            select(Image.job_id, func.count())
            .join(Job, Job.id == Image.job_id)
            .where(Job.batch_id == batch.id)
            .group_by(Image.job_id)
        ).all()
    store.close()
    assert sorted(number for _, number in pictures) == [1] * ROWS
    assert max(job.attempt for job in jobs) >= 2, "nothing was running when it was killed"
    files = client.batches.download(done, tmp_path / "out")
    assert sum(path.suffix == ".png" for path in files) == ROWS
    if victim == "worker":
        assert any("worker-1 was killed by SIGKILL; starting it again" in line for line in farm.said)


def test_a_killed_api_is_back_and_no_job_was_lost(farm: Up, client: Client) -> None:
    job = client.jobs.submit("a white star, blue background", model="demo")
    os.kill(farm.find("api.service").pid, signal.SIGKILL)
    assert client.jobs.wait(job, timeout_s=START_S, check=True).images
    assert any("api was killed by SIGKILL" in line for line in farm.said)


def test_redis_lost_with_all_it_held(farm: Up, client: Client) -> None:
    os.kill(farm.find("redis-server").pid, signal.SIGKILL)
    jobs = [client.jobs.submit("a yellow ball, green background", model="demo") for _ in range(3)]
    for job in jobs:
        assert client.jobs.wait(job, timeout_s=START_S, check=True).images
