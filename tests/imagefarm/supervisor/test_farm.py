"""The embedded farm from inside, without workers: given up while starting, stopped in a hurry, its Redis replaced."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from imagefarm.errors import ConfigurationError, DataFolderBusy
from imagefarm.redis import connect_redis
from imagefarm.settings import Settings
from imagefarm.supervisor.farm import EmbeddedFarm
from tests.waiting import until


@pytest.fixture
def small(starts_process: None, settings: Settings) -> Settings:
    """Settings of a farm without workers, on a free port."""
    return settings.model_copy(update={"workers": 0, "port": 0})


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


def test_it_serves_survives_its_redis_and_stops_in_a_hurry(small: Settings) -> None:
    said: list[str] = []
    farm = EmbeddedFarm(small, say=said.append)
    before = {child.pid for child in children()}
    farm.start()
    try:
        assert httpx.get(f"{farm.url}/readyz", trust_env=False).json()["status"] == "ready"
        where = json.loads((small.data_dir / "run" / "farm.json").read_text())
        assert (where["url"], set(where["processes"])) == (farm.url, {"redis", "api", "sweep", "beat"})
        with pytest.raises(DataFolderBusy):
            EmbeddedFarm(small).start()
        redis = connect_redis(farm.settings)
        assert redis.config_get("save") == {"save": ""}
        assert redis.config_get("port") == {"port": "0"}
        os.kill(farm.pids["redis"], signal.SIGKILL)
        until(lambda: "redis was killed by SIGKILL; starting it again" in " ".join(said), "the news")
        until(lambda: farm.pids.get("redis") and httpx.get(f"{farm.url}/readyz", trust_env=False, timeout=10).is_success, "Redis")
        redis.close()
    finally:
        began = time.monotonic()
        farm.hurry.set()
        farm.stop()
    assert time.monotonic() - began < 10
    assert {child.pid for child in children()} <= before
    assert not (small.data_dir / "run" / "farm.json").exists()
    assert not (small.data_dir / "run" / "redis.sock").exists()


def test_given_up_while_starting_it_leaves_nothing(small: Settings) -> None:
    farm = EmbeddedFarm(small)
    before = {child.pid for child in children()}

    def interrupt_at_the_first_process() -> None:
        until(lambda: {child.pid for child in children()} - before, "a first process")
        farm.interrupted.set()

    threading.Thread(target=interrupt_at_the_first_process).start()
    with pytest.raises(ConfigurationError, match="before it was ready"):
        farm.start()
    assert {child.pid for child in children()} <= before
    again = EmbeddedFarm(small)  # the folder is free
    again.interrupted.set()
    with pytest.raises(ConfigurationError, match="before it was ready"):
        again.start()


def test_a_catalogue_that_is_broken_is_told_before_anything_starts(small: Settings, tmp_path: Path) -> None:
    catalogue = tmp_path / "models.toml"
    catalogue.write_text("[models.Demo!]\n")
    farm = EmbeddedFarm(small.model_copy(update={"models_file": catalogue}))
    before = {child.pid for child in children()}
    with pytest.raises(ConfigurationError, match=r"models\.toml"):
        farm.start()
    assert {child.pid for child in children()} <= before
