"""A cached Redis ping."""

from __future__ import annotations

import threading
import time

from redis import Redis
from redis.exceptions import RedisError


class RedisHealth:
    """Whether Redis responds. It is pinged at most every two seconds, regardless of the number of requests."""

    EVERY_S = 2.0

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._asked_at = -self.EVERY_S
        self._is_up = True
        self._lock = threading.Lock()

    def is_up(self) -> bool:
        """True if Redis responded to the last ping."""
        with self._lock:
            if time.monotonic() - self._asked_at >= self.EVERY_S:
                try:
                    self._is_up = bool(self.redis.ping())
                except (RedisError, OSError):
                    self._is_up = False
                self._asked_at = time.monotonic()
            return self._is_up
