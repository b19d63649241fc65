"""The worker's parent knows why its child ended. It also looks for jobs without a ticket, and issues one if its child is idle."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.worker import state as celery_state

from imagefarm.settings import Settings
from scheduler.tickets import waiting
from tests.farm import Farm
from worker.child_monitor import ChildMonitor
from worker.leases.lease_keeper import HUNG_EXIT, STUCK_EXIT
from worker.render_process import BROKEN_EXIT, DEVICE_LOST_EXIT


@pytest.fixture
def farm(starts_process: None, tmp_path: Path) -> Iterator[Farm]:
    with Farm(tmp_path) as farm:
        yield farm


def test_an_idle_workers_parent_issues_the_ticket_that_was_lost(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    child_monitor = ChildMonitor(farm.app, farm.settings, ["demo", "sd15"], "w1@here")

    def look() -> list[int]:
        child_monitor._look_for_work()
        return [waiting(farm.redis, farm.settings.redis_prefix, model) for model in ("demo", "sd15", "sdxl")]

    farm.submit_many([{"prompt": "a mug", "model": "sdxl"}], notify=False)
    assert look() == [0, 0, 0], "it does not serve that one"
    farm.submit_many([{"prompt": "a mug"}, {"prompt": "a cup"}], notify=False)
    with monkeypatch.context() as busy:
        busy.setattr(celery_state, "active_requests", {"a task"})
        assert look() == [0, 0, 0], "its child is at work, and will look itself"
    assert look() == [1, 0, 0]
    assert look() == [1, 0, 0], "one waits already"
    farm.redis.flushall()
    assert look() == [1, 0, 0]


@pytest.mark.parametrize(
    ("code", "self_inflicted"),
    [
        (None, False),
        (-signal.SIGKILL, False),
        (-signal.SIGTERM, False),
        (STUCK_EXIT, False),
        (-signal.SIGSEGV, True),
        (-signal.SIGABRT, True),
        (HUNG_EXIT, True),
        (DEVICE_LOST_EXIT, True),
        (BROKEN_EXIT, True),
    ],
)
def test_who_may_have_ended_a_child(settings: Settings, code: int | None, self_inflicted: bool) -> None:
    child_monitor = ChildMonitor(None, settings, ["demo"], "node")  # type: ignore[arg-type]
    child_monitor.child_ended("wrk_a", code)
    ((incarnation, reason, own),) = child_monitor._deaths
    assert (incarnation, own) == ("wrk_a", self_inflicted)
    assert reason
