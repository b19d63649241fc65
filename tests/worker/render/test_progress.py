"""Live progress: the latest always arrives, not every step does, and a Redis that is away costs the render thread nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefarm.redis import events_channel, progress_key
from scheduler.queue.claim import ClaimedJob, ClaimLimits, claim
from tests.farm import Farm
from worker.render.progress import ProgressPublisher


@pytest.fixture
def farm(starts_process: None, tmp_path: Path) -> Iterator[Farm]:
    with Farm(tmp_path) as farm:
        yield farm


@pytest.fixture
def job(farm: Farm) -> ClaimedJob:
    farm.submit(notify=False)
    return claim(farm.store, "wrk_a", serves=["demo"], limits=ClaimLimits(images=1))[0]


def test_the_latest_arrives_and_not_every_step_does(farm: Farm, job: ClaimedJob) -> None:
    prefix = farm.settings.redis_prefix
    publisher = ProgressPublisher(farm.redis, prefix)
    with farm.redis.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe(events_channel(prefix))
        listener.get_message(timeout=1)
        publisher.start()
        for step in range(201):
            publisher.say(job, step, 200)
            time.sleep(0.002)
        publisher.stop()
        heard = []
        while message := listener.get_message(timeout=0.5):
            heard.append(json.loads(message["data"]))
    assert json.loads(str(farm.redis.get(progress_key(prefix, job.id)))) == {"step": 200, "steps": 200, "attempt": 1}
    assert (heard[-1]["kind"], heard[-1]["subject"], heard[-1]["step"]) == ("job.progress", job.id, 200)
    assert [event["step"] for event in heard] == sorted(event["step"] for event in heard)
    assert 2 <= len(heard) < 100
    assert publisher.failures == 0


def test_a_redis_that_is_away_is_counted_and_never_waited_for(farm: Farm, job: ClaimedJob) -> None:
    publisher = ProgressPublisher(farm.redis, farm.settings.redis_prefix)
    publisher.start()
    farm.kill("redis")
    began = time.monotonic()
    for step in range(1000):
        publisher.say(job, step, 1000)
    assert time.monotonic() - began < 0.5
    farm.wait_until(lambda: publisher.failures > 0, 10)
    farm.start_redis()
    publisher.say(job, 1000, 1000)
    key = progress_key(farm.settings.redis_prefix, job.id)
    farm.wait_until(lambda: (farm.redis.get(key) or "").startswith('{"step": 1000'), 10)  # type: ignore[union-attr]
    publisher.stop()
