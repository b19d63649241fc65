"""Failures to sign in are counted for all processes in Redis, and in each process while Redis is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from api.http import sign_in_throttle
from api.http.sign_in_throttle import MAX_PER_ADDRESS, MAX_PER_ADDRESS_AND_NAME, check, failed
from imagefarm.errors import LimitExceeded


@pytest.fixture(params=["redis", "redis away"])
def redis(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[Redis]:
    sign_in_throttle._local_counts().reset()
    url = redis_url if request.param == "redis" else f"unix://{tmp_path}/none.sock"
    with Redis.from_url(url, decode_responses=True) as redis:
        yield redis
    sign_in_throttle._local_counts().reset()


def test_a_name_from_one_address_an_address_and_another_farm(redis: Redis, tmp_path: Path) -> None:
    farm = f"farm-{tmp_path.name}"
    for _ in range(MAX_PER_ADDRESS_AND_NAME):
        check(redis, farm, "192.0.2.1", "ada")
        failed(redis, farm, "192.0.2.1", "ada")
    with pytest.raises(LimitExceeded) as refused:
        check(redis, farm, "192.0.2.1", "ada")
    assert 0 < (refused.value.retry_after or 0) <= sign_in_throttle.WINDOW_S
    check(redis, farm, "192.0.2.2", "ada")
    check(redis, farm, "192.0.2.1", "bob")
    for number in range(MAX_PER_ADDRESS - MAX_PER_ADDRESS_AND_NAME):
        failed(redis, farm, "192.0.2.1", f"guess {number}")
    with pytest.raises(LimitExceeded):
        check(redis, farm, "192.0.2.1", "bob")
    check(redis, farm, "192.0.2.2", "bob")


def test_counts_of_a_process_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in_throttle, "MAX_LOCAL_COUNTS", 30)
    counts = sign_in_throttle._local_counts()
    counts.reset()
    with Redis.from_url(f"unix://{tmp_path}/none.sock") as redis:
        for number in range(40):
            failed(redis, "farm", f"192.0.2.{number}", f"name {number}")
    assert len(counts.storage) <= 30 + 2
    counts.reset()
