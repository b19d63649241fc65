"""Tickets: a lane has as many as are useful, not more, and lost tickets are issued again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefarm.settings import PROJECT_ROOT
from scheduler import tickets
from scheduler.queue.workers import WorkerIdentity, mark_offline, register
from scheduler.tickets import TicketSender, top_up, waiting
from tests.farm import Farm


@pytest.fixture
def farm(starts_process: None, tmp_path: Path) -> Iterator[Farm]:
    with Farm(tmp_path) as farm:
        yield farm


def wait_on(farm: Farm, model: str) -> int:
    return waiting(farm.redis, farm.settings.redis_prefix, model)


def test_a_lane_is_topped_up_to_its_workers_and_its_jobs(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    def top(backlog: dict[str, int], workers: dict[str, int]) -> int:
        return top_up(farm.app, farm.redis, farm.settings.redis_prefix, backlog, workers)

    backlog, workers = {"demo": 5, "sd15": 1, "sdxl": 3}, {"demo": 2, "sd15": 4}
    assert top(backlog, workers) == 3
    assert [wait_on(farm, model) for model in backlog] == [2, 1, 0], "as many as there are workers, as jobs, and none for nobody"
    assert top(backlog, workers) == 0
    farm.redis.flushall()
    assert top(backlog, workers) == 3, "lost tickets are issued again"
    monkeypatch.setattr(tickets, "TICKETS_PER_LANE", 4)
    assert top({"demo": 100}, {"demo": 100}) == 2


def test_many_notifications_of_many_processes_make_one_ticket(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MIN_TICKET_INTERVAL_MS", 60_000)
    first, second = (TicketSender(farm.app, farm.redis, farm.settings.redis_prefix) for _ in range(2))
    first.notify_lane("demo")
    farm.wait_until(lambda: wait_on(farm, "demo") == 1, 10)
    for ticket_sender in (first, second, second):
        ticket_sender.notify_lane("demo")
    second.notify_lane("sd15")  # comes after the others in its thread
    farm.wait_until(lambda: wait_on(farm, "sd15") == 1, 10)
    assert wait_on(farm, "demo") == 1
    assert first.failures == second.failures == 0


def test_a_sweep_issues_tickets_for_the_workers_that_live(farm: Farm) -> None:
    for name in ("w1", "w2", "w3"):
        told = {"name": name, "host": "rack", "pid": 7, "device": "cpu", "version": "0", "serves": ["demo"]}
        register(farm.store, WorkerIdentity(id=name, **told))  # type: ignore[arg-type]
    mark_offline(farm.store, "w3", farm.settings, "stopped", clean=True)
    farm.submit_many([{"prompt": f"a mug {number}"} for number in range(5)], notify=False)
    assert wait_on(farm, "demo") == 0
    environment = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEFARM_")}
    environment |= farm.settings.environment() | {"PYTHONPATH": str(PROJECT_ROOT)}
    subprocess.run(
        [sys.executable, "-c", "from scheduler.service import run_sweep; run_sweep()"],
        env=environment,
        cwd=farm.folder,
        check=True,
        timeout=60,
    )
    assert wait_on(farm, "demo") == 2
