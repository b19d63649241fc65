"""Maintenance: tasks in threads beside the sweep; a slow receiver delays neither other webhooks nor the sweep."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from imagefarm.ids import new_id
from imagefarm.output_store import LocalOutputStore
from imagefarm.settings import PROJECT_ROOT
from imagefarm.store import db_now
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import SweepState, Webhook, WebhookDelivery
from scheduler.celery_app import CLEANUP_TASK, MAINTENANCE_QUEUE, SWEEP_QUEUE, make_celery
from scheduler.maintenance import CLEANUPS, POOL_SIZE, SWEEPS, UPLOAD_TASKS, WEBHOOK_TASKS, Maintenance, TaskLimit
from tests.farm import Farm
from tests.receiver import Receiver, receiving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def farm(starts_process: None, tmp_path: Path) -> Iterator[Farm]:
    with Farm(tmp_path, allow_private_urls=True, sweep_interval_s=0.5) as farm:
        yield farm


@pytest.fixture
def receivers() -> Iterator[tuple[Receiver, Receiver]]:
    with receiving() as slow, receiving() as fast:
        yield slow, fast


def add_webhook(farm: Farm, receiver: Receiver, messages: int) -> str:
    """A webhook with messages that are due."""
    webhook_id = new_id("hook")
    message: dict[str, Any] = {"webhook_id": webhook_id, "tenant_id": DEFAULT_TENANT, "kind": "batch.done", "body": "{}"}
    with farm.store.write() as session:
        now = session.scalar(select(db_now())) or 0.0
        hook = {"id": webhook_id, "tenant_id": DEFAULT_TENANT, "url": receiver.url, "secret": SECRET, "kinds": ["batch.done"]}
        session.execute(insert(Webhook).values(**hook, created_at=now))
        rows = [message | {"id": new_id("msg"), "state": "waiting", "next_at": now, "created_at": now} for _ in range(messages)]
        session.execute(insert(WebhookDelivery), rows)
    return webhook_id


def states(farm: Farm, webhook_id: str) -> set[str]:
    with farm.store.read() as session:
        return set(session.scalars(select(WebhookDelivery.state).where(WebhookDelivery.webhook_id == webhook_id)))


def test_a_slow_receiver_delays_its_own_messages_alone(farm: Farm, receivers: tuple[Receiver, Receiver]) -> None:
    slow, fast = receivers
    slow.may_answer.clear()
    slow_hook, fast_hook = add_webhook(farm, slow, 10), add_webhook(farm, fast, 10)
    farm.start_scheduler()
    farm.wait_until(lambda: slow.open_requests, 30, "the slow receiver is asked")
    farm.wait_until(lambda: states(farm, fast_hook) == {"delivered"}, 9, "the fast receiver has all messages")
    assert (len(slow.got), slow.most_open_requests, fast.most_open_requests) == (1, 1, 1)
    slow.may_answer.set()
    farm.wait_until(lambda: states(farm, slow_hook) == {"delivered"}, 30, "the slow receiver has all messages")
    assert slow.most_open_requests == 1
    assert len(slow.got) == len(fast.got) == 10


def test_slow_receivers_never_delay_the_sweep_and_shutdown_does_not_wait_for_them(farm: Farm) -> None:
    def swept_at() -> float:
        with farm.store.read() as session:
            return session.get_one(SweepState, 1).last_at

    with ExitStack() as stack:
        slow = [stack.enter_context(receiving()) for _ in range(WEBHOOK_TASKS + 4)]
        for receiver in slow:
            receiver.may_answer.clear()
            add_webhook(farm, receiver, 1)
        farm.start_scheduler()
        farm.wait_until(lambda: sum(each.open_requests for each in slow) >= WEBHOOK_TASKS, 30, "all tasks wait for receivers")
        for _ in range(4):
            before = swept_at()
            farm.wait_until(lambda before=before: swept_at() > before, 5, "another sweep")  # type: ignore[misc]
        assert farm.terminate("sweep") == 0


def test_a_message_that_was_lost_is_sent_again(farm: Farm, receivers: tuple[Receiver, Receiver]) -> None:
    maintenance = Maintenance(farm.store, farm.settings, LocalOutputStore(farm.settings.outputs))

    def send_due() -> int:
        return maintenance.send_due(farm.app, farm.redis, farm.settings.redis_prefix)

    assert send_due() == 0
    for receiver in receivers:
        add_webhook(farm, receiver, 3)
    assert send_due() == 2, "one for each webhook"
    assert send_due() == 0, "those wait for a thread"
    farm.redis.flushall()
    assert send_due() == 2
    farm.redis.flushall()
    maintenance.deliver_webhooks()
    assert [len(receiver.got) for receiver in receivers] == [3, 3]
    assert send_due() == 0


def test_no_more_tasks_of_a_kind_than_its_limit() -> None:
    limit = TaskLimit("test", 1)
    running, end = threading.Event(), threading.Event()

    def work() -> str:
        running.set()
        end.wait(30)
        return "done"

    thread = threading.Thread(target=limit.run, args=(work,))
    thread.start()
    assert running.wait(30)
    assert limit.run(lambda: "done") is None
    end.set()
    thread.join(30)
    assert limit.run(lambda: "done") == "done"
    assert SWEEPS + WEBHOOK_TASKS + UPLOAD_TASKS + CLEANUPS < POOL_SIZE, "no thread is left for the sweep"


def test_after_shutdown_begins_no_message_is_sent(farm: Farm, receivers: tuple[Receiver, Receiver]) -> None:
    maintenance = Maintenance(farm.store, farm.settings, LocalOutputStore(farm.settings.outputs))
    add_webhook(farm, receivers[0], 3)
    maintenance.stopping.set()
    maintenance.deliver_webhooks()
    assert len(receivers[0].got) <= 1
    maintenance.stopping.clear()
    maintenance.deliver_webhooks()
    assert len(receivers[0].got) == 3, "its turn was given back"


def test_beat_sends_sweeps_and_cleanups_on_queues_of_their_own(farm: Farm) -> None:
    schedule = make_celery(farm.settings, farm.catalogue, publisher=True).conf.beat_schedule
    assert {entry["options"]["queue"] for entry in schedule.values()} == {SWEEP_QUEUE, MAINTENANCE_QUEUE}
    assert schedule["cleanup"]["task"] == CLEANUP_TASK


RETRIED = """
from scheduler import service

calls = []

def away(maintenance):
    calls.append(1)
    if len(calls) < 3:
        raise OSError("the output store is away")

service.Maintenance.clean_up = away
service.clean_up.retry_backoff = 0
assert service.clean_up.apply().state == "SUCCESS"
print(len(calls))
"""


def test_celery_tries_a_task_again_whose_store_is_away(farm: Farm) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEFARM_")}
    environment |= farm.settings.environment() | {"PYTHONPATH": str(PROJECT_ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", RETRIED], env=environment, cwd=farm.folder, capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stdout.split()[-1:]) == (0, ["3"]), ran.stderr
