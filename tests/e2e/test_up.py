"""`imagefarm up` as an operator meets it: one line, light processes, one farm a folder, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from imagefarm import Client
from tests.e2e.up import COMMAND, START_S, Up, clean_environment
from tests.waiting import until

MIB = 1024 * 1024


def test_the_api_has_no_torch_and_is_light(farm: Up, client: Client) -> None:
    client.models.list()
    master = farm.find("api.service")
    for process in (master, *master.children(recursive=True)):
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "torch" not in maps
        assert process.memory_info().rss < 150 * MIB
    for words in ("scheduler.service worker", "scheduler.service beat"):
        assert "torch" not in Path(f"/proc/{farm.find(words).pid}/maps").read_text()


def test_an_idle_farm_hardly_works(farm: Up, client: Client) -> None:
    until(lambda: client.status.queue().model_dump()["running"] == 0, "an idle farm")
    processes = [*farm.family, psutil.Process(farm.process.pid)]

    def used() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes if process.is_running())

    before, began = used(), time.monotonic()
    time.sleep(6)  # the measurement itself
    share = (used() - before) / (time.monotonic() - began)
    assert share < 0.03, f"an idle farm uses {share:.1%} of a core"


def test_a_second_farm_on_the_same_folder_is_refused(farm: Up) -> None:
    second = subprocess.run(
        [*COMMAND, "up", "--port", "0", "--data", str(farm.data)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.returncode == 4
    assert f"in use by another imagefarm (process {farm.process.pid})" in second.stderr
    assert second.stderr.count("\n") == 1
    assert second.stdout == ""


def test_a_port_in_use_is_refused(farm: Up, tmp_path: Path) -> None:
    port = farm.url.rsplit(":", 1)[1]
    refused = subprocess.run(
        [*COMMAND, "up", "--port", port, "--data", str(tmp_path / "data")],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 5
    assert f"port {port} of 127.0.0.1 is in use" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_others_are_not_let_in_without_a_key(tmp_path: Path) -> None:
    refused = subprocess.run(
        [*COMMAND, "up", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path / "data")],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 3
    assert "imagefarm keys create" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.fixture
def own_farm(tmp_path: Path) -> Up:
    """A folder with a space and Chinese in its name: what a user may well have."""
    return Up(tmp_path / "my 农场" / "data") if (tmp_path / "my 农场").mkdir() is None else None


def test_it_drains_on_sigterm_goes_on_where_it_was_and_leaves_nothing_when_killed(own_farm: Up) -> None:
    farm = own_farm.until_ready()
    try:
        assert json.loads((farm.data / "run" / "farm.json").read_text())["url"] == farm.url
        with farm.client() as client:
            jobs = [client.jobs.submit("a red heart, white background", model="demo", steps=50, count=4) for _ in range(6)]
            until(lambda: client.jobs.get(jobs[0]).state == "running", "a running job")
        assert farm.stop(signal.SIGTERM) == 0
        assert farm.left_over() == []
        assert "worker-1 did not stop" not in "\n".join(farm.said)

        again = Up(farm.data)
        try:
            again.until_ready()
            with again.client() as client:
                for job in jobs:
                    assert len(client.jobs.wait(job, timeout_s=START_S, check=True).images) == 4
                    assert client.jobs.get(job).error is None
            os.kill(again.process.pid, signal.SIGKILL)
            again.process.wait()
            until(lambda: again.left_over() == [], "the end of all it started", 15)
        finally:
            again.close()
    finally:
        farm.close()
