"""Tickets: "this lane has work". They name no job and may be lost, duplicated or late; SQL is the truth."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from imagefarm.logs import get_logger
from scheduler.celery_app import RENDER_TASK, lane_queue

log = get_logger(__name__)

MIN_TICKET_INTERVAL_MS = 500
"""Shortest time between two tickets of a lane, over all API processes."""
TICKETS_PER_LANE = 64
"""Most tickets that wait for one lane."""


def issue(app: Celery, model: str) -> None:
    """Put one ticket on a lane. Raises when Redis is away."""
    app.send_task(RENDER_TASK, kwargs={"lane": model}, queue=lane_queue(model), retry=False)


def waiting(redis: Redis, prefix: str, model: str) -> int:
    """How many tickets wait on a lane."""
    return int(redis.llen(f"{prefix}:{lane_queue(model)}"))


def top_up(app: Celery, redis: Redis, prefix: str, backlog: Mapping[str, int], workers: Mapping[str, int]) -> int:
    """Give each lane with work as many tickets as it has workers (at most as many as jobs); return how many were sent."""
    issued = 0
    for model, jobs in backlog.items():
        wanted = min(jobs, workers.get(model, 0), TICKETS_PER_LANE)
        for _ in range(wanted - waiting(redis, prefix, model)):
            issue(app, model)
            issued += 1
    return issued


class TicketSender:
    """Sends tickets outside the request's thread. A call never blocks and never raises; failures are counted and logged."""

    def __init__(self, app: Celery, redis: Redis, prefix: str) -> None:
        self.app = app
        self.redis = redis
        self.prefix = prefix
        self.failures = 0
        self._notified: dict[str, float] = {}
        self._lanes: queue.Queue[str] = queue.Queue(maxsize=1000)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def notify_lane(self, model: str) -> None:
        """Announce that a lane has work."""
        if time.monotonic() < self._notified.get(model, 0.0):
            return  # Redis would reject it for the same reason
        self._start()
        try:
            self._lanes.put_nowait(model)
        except queue.Full:
            self.failures += 1

    def _start(self) -> None:
        # not in the constructor: gunicorn forks after the application is made
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="ticket_sender", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            model = self._lanes.get()
            if time.monotonic() < self._notified.get(model, 0.0):
                continue
            try:
                if self.redis.set(f"{self.prefix}:notified:{model}", 1, nx=True, px=MIN_TICKET_INTERVAL_MS):
                    self._notified[model] = time.monotonic() + MIN_TICKET_INTERVAL_MS / 1000
                    issue(self.app, model)
            except (RedisError, OperationalError, OSError) as error:
                # the sweep sends the ticket once Redis is back
                self.failures += 1
                log.warning("ticket.send_failed", lane=model, error=str(error), failures=self.failures)
