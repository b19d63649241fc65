"""Live events inside one process: one thread reads them from Redis and passes each to its subscribers.

Two hundred open pages cost one Redis connection and no database connection. When Redis is unavailable, the thread sends the event
`away` to all subscribers and keeps reconnecting. No job depends on live events.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.client import PubSub
from redis.exceptions import RedisError

from api.live.errors import TooManyStreams
from imagefarm.logs import get_logger
from imagefarm.redis import events_channel

log = get_logger(__name__)

Event = dict[str, Any]
AWAY: Event = {"kind": "away"}
"""Redis is unavailable: subscribers must poll the database."""
BACK: Event = {"kind": "back"}
"""Redis is available again. The events in between were lost."""
CLOSE: Event = {"kind": "close"}
"""The stream must end: the process is stopping, or the subscriber was too slow."""
QUEUE_LENGTH = 500
RETRY_S = 1.0


class Subscription:
    """The queue of events of one stream."""

    def __init__(self, wants: Callable[[Event], bool]) -> None:
        self.wants = wants
        self.events: queue.Queue[Event] = queue.Queue(maxsize=QUEUE_LENGTH)
        self.closed = False

    def next(self, timeout_s: float) -> Event | None:
        """Return the next event, or None if none arrives within `timeout_s` seconds."""
        if self.closed and self.events.empty():
            return CLOSE
        try:
            return self.events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def offer(self, event: Event) -> None:
        """Add an event to the queue. A full queue closes the subscription; its client may reconnect with its last event id."""
        try:
            self.events.put_nowait(event)
        except queue.Full:
            self.closed = True


class EventFanout:
    """Reads live events for the whole process. `max_streams` bounds the streams, because each holds a thread of the server."""

    def __init__(self, redis: Redis, prefix: str, *, max_streams: int) -> None:
        self.redis = redis
        self.channel = events_channel(prefix)
        self.max_streams = max_streams
        self.failures = 0
        self.away = False
        self._subscriptions: set[Subscription] = set()
        self._all_events: set[Subscription] = set()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()

    @property
    def streams(self) -> int:
        """The number of open streams."""
        return len(self._subscriptions)

    def subscribe(self, wants: Callable[[Event], bool]) -> Subscription:
        """Open a stream of the events for which `wants` returns True. Raises TooManyStreams."""
        subscription = Subscription(wants)
        self.add(subscription)
        return subscription

    def add(self, subscription: Subscription) -> None:
        """Register a stream. Raises TooManyStreams when `max_streams` are open or the process is stopping."""
        with self._lock:
            if len(self._subscriptions) >= self.max_streams or self._closing.is_set():
                raise TooManyStreams(self.max_streams)
            self._begin(subscription, self._subscriptions)

    def listen(self, subscription: Subscription) -> None:
        """Register an internal listener. It does not count as a stream."""
        with self._lock:
            self._begin(subscription, self._all_events)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a stream. Calling it again has no effect."""
        with self._lock:
            self._subscriptions.discard(subscription)

    def _begin(self, subscription: Subscription, among: set[Subscription]) -> None:
        among.add(subscription)
        if self.away:
            subscription.offer(AWAY)
        if self._closing.is_set():
            subscription.offer(CLOSE)
        elif self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="event-fanout", daemon=True)
            self._thread.start()

    @contextmanager
    def subscribed(self, wants: Callable[[Event], bool]) -> Iterator[Subscription]:
        """A subscription for the duration of a `with` block."""
        subscription = self.subscribe(wants)
        try:
            yield subscription
        finally:
            self.unsubscribe(subscription)

    def close(self) -> None:
        """End every stream and stop the thread."""
        self._closing.set()
        for subscription in self._copy():
            subscription.closed = True
            subscription.offer(CLOSE)

    def join(self, timeout_s: float = 3.0) -> None:
        """Wait up to `timeout_s` seconds until the thread has stopped, after `close`."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _copy(self) -> list[Subscription]:
        with self._lock:
            return [*self._all_events, *self._subscriptions]

    def _run(self) -> None:
        while not self._closing.is_set():
            pubsub: PubSub = self.redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
            try:
                pubsub.subscribe(self.channel)
                self._listen(pubsub)
            except (RedisError, OSError) as error:
                self.failures += 1
                if not self.away:
                    self.away = True
                    log.warning("events.disconnected", error=str(error), failures=self.failures)
                    self._tell_all(AWAY)
                self._closing.wait(RETRY_S)
            finally:
                pubsub.close()

    def _listen(self, pubsub: PubSub) -> None:
        while not self._closing.is_set():
            message = pubsub.get_message(timeout=0.5)
            if self.away:  # subscribing succeeded, so Redis is available again
                self.away = False
                log.info("events.reconnected")
                self._tell_all(BACK)
            if message is not None and message["type"] == "message":
                self._dispatch(message["data"])

    def _dispatch(self, data: str) -> None:
        try:
            event = json.loads(data)
        except ValueError:
            self.failures += 1
            return
        if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
            self.failures += 1
            return
        for subscription in self._copy():
            if subscription.wants(event):
                subscription.offer(event)

    def _tell_all(self, event: Event) -> None:
        for subscription in self._copy():
            subscription.offer(event)
