"""Live events: committed events are published through Redis without delaying the commit.

A store with an `EventPublisher` as its listener passes it the audit events of every transaction after the commit. A thread
publishes them. While Redis is unavailable the events are dropped and counted; all of them are in SQL.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from imagefarm.logs import get_logger
from imagefarm.redis import publish_many

log = get_logger(__name__)

GATHER_S = 0.02
"""Seconds. Events within this time are sent in one round trip, because one round trip per event costs too much under load."""
MAX_EVENTS = 200
"""Largest number of events of one transaction that are published one by one. A larger change becomes one event `bulk.changed`."""


class EventPublisher:
    """Publishes committed events outside the committing thread. Call it with the events of one transaction."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self.redis = redis
        self.prefix = prefix
        self.dropped = 0
        self._events: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=10_000)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def __call__(self, events: list[dict[str, Any]]) -> None:
        """Take the events of a committed transaction. Never blocks, never raises."""
        if len(events) > MAX_EVENTS:
            events = [{"kind": "bulk.changed", "subject": "farm", "tenant_id": None, "data": {"events": len(events)}}]
        self._start()
        for event in events:
            try:
                self._events.put_nowait(event)
            except queue.Full:
                self.dropped += 1

    def _start(self) -> None:
        # not in the constructor: a server may fork after this object is made
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="event-publisher", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        published = 0.0
        while True:
            events = [self._events.get()]
            if (early := published + GATHER_S - time.monotonic()) > 0:
                time.sleep(early)
            while len(events) < MAX_EVENTS and not self._events.empty():
                events.append(self._events.get_nowait())  # this is the only consumer
            try:
                publish_many(self.redis, self.prefix, events)
                published = time.monotonic()
            except (RedisError, OSError) as error:
                before, self.dropped = self.dropped, self.dropped + len(events)
                if before.bit_length() < self.dropped.bit_length():  # at 1, 2, 4, 8 ...
                    log.warning("events.dropped", dropped=self.dropped, error=str(error))
