"""How many requests a caller may make in a minute, counted in Redis for all processes together.

Requests are counted in a window that begins with each minute of the clock. A caller who has many left is counted here and
told to Redis a few at a time, so that a request need not cost a round trip; near the limit each is counted there. When Redis
does not answer in time the request is let through: a limit is a courtesy among callers, and no reason to be away. What was let
through so is counted.
"""

from __future__ import annotations

import hashlib
import math
from threading import Lock
from time import monotonic
from time import time as clock
from typing import NamedTuple

from flask import Flask, Response, g, request
from limits.storage import RedisStorage
from redis.exceptions import RedisError

from imagefarm.auth import Caller
from imagefarm.errors import LimitExceeded
from imagefarm.logs import get_logger
from imagefarm.redis import connect_redis
from imagefarm.settings import Settings

log = get_logger(__name__)

WINDOW_S = 60
COUNT_TIMEOUT_S = 0.25
"""A request waits no longer to be counted."""
PAUSE_S = 2.0
"""Redis is not asked again for so long after it failed: else every request would wait."""
LOG_EVERY_S = 60.0
HELD = 16
"""So many requests of one caller are counted in this process before Redis hears of them, which is by how much each process may
let the limit be passed."""
MAX_CALLERS = 10_000
PLENTY = 20 * HELD
"""Only with so many left: a limit that is smaller, or nearly used up, is counted exactly."""
HEADERS = {
    "RateLimit-Policy": 'The limit of requests: `"requests";q=30000;w=60` is 30,000 in 60 s. Absent where there is none.',
    "RateLimit": 'What is left of it: `"requests";r=29990;t=42` is 29,990 until 42 seconds from now.',
}
"""What they say of the limit, after the IETF's draft-ietf-httpapi-ratelimit-headers."""


class Window(NamedTuple):
    """Where a caller stands in the present minute."""

    max_requests: int
    used: int
    left_s: int

    @property
    def headers(self) -> dict[str, str]:
        return {
            "RateLimit-Policy": f'"requests";q={self.max_requests};w={WINDOW_S}',
            "RateLimit": f'"requests";r={max(0, self.max_requests - self.used)};t={self.left_s}',
        }


class Held(NamedTuple):
    """What this process knows of a caller's present minute: how far Redis had counted, and what it does not know of yet."""

    minute: int
    known: int
    more: int


class RequestLimit:
    """The count of one process's requests in the Redis that all share."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis = connect_redis(settings, timeout_s=COUNT_TIMEOUT_S)
        self._counts = RedisStorage(
            "redis://", connection_pool=self._redis.connection_pool, key_prefix=f"{settings.redis_prefix}:requests"
        )
        self._lock = Lock()
        self._held: dict[str, Held] = {}
        self._ask_again_at = 0.0
        self._log_again_at = 0.0
        self.unchecked = 0
        """Requests that were let through uncounted, since this process began."""

    def count(self, who: str) -> Window | None:
        """Count a request; None if no limit is in force or Redis is away. Raises LimitExceeded."""
        max_requests = self._settings.requests_per_minute
        if max_requests == 0:
            return None
        if self.asks_again_in_s > 0:
            self._let_through()
            return None
        minute, into = divmod(clock(), WINDOW_S)
        left_s = math.ceil(WINDOW_S - into)
        with self._lock:
            held = self._held.get(who)
            if held is None or held.minute != minute:
                held = Held(int(minute), max_requests, 0)  # nothing is known yet: Redis is asked
            used = held.known + held.more + 1
            here = max_requests - used > PLENTY and held.more + 1 < HELD
            self._held[who] = held._replace(more=held.more + 1 if here else 0)
            if len(self._held) > MAX_CALLERS:
                self._held.clear()
        if here:
            return Window(max_requests, used, left_s)
        try:
            used = self._counts.incr(f"{who}:{int(minute)}", WINDOW_S, amount=held.more + 1)
        except (RedisError, OSError) as error:
            self._let_through(error)
            return None
        with self._lock:
            self._held[who] = Held(int(minute), used, self._held.get(who, held).more)
        return Window(max_requests, used, left_s)

    @property
    def asks_again_in_s(self) -> float:
        """Seconds until Redis is asked again after a failure; 0: it is asked."""
        return max(0.0, self._ask_again_at - monotonic())

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()

    def _let_through(self, error: Exception | None = None) -> None:
        now = monotonic()
        with self._lock:
            self.unchecked += 1
            tell = error is not None and now >= self._log_again_at
            if error is not None:
                self._ask_again_at = now + PAUSE_S
            if tell:
                self._log_again_at = now + LOG_EVERY_S
        if tell:
            log.warning("requests.uncounted", error=str(error)[:200], unchecked=self.unchecked)


def count_request(limit: RequestLimit, caller: Caller | None) -> None:
    """Count the current request, once, for its caller, or for its address if nobody knows who asks. Raises LimitExceeded."""
    if "request_window" in g:
        return
    g.request_window = window = limit.count(_name(caller))
    if window is not None and window.used > window.max_requests:
        detail = f"{window.max_requests} requests a minute are taken from one caller; the next minute begins in {window.left_s} s"
        raise LimitExceeded(detail, limit="requests_per_minute", value=window.max_requests, retry_after=window.left_s)


def present_window() -> Window | None:
    """Where the caller of the current request stands."""
    window: Window | None = g.get("request_window")
    return window


def init_app(app: Flask) -> None:
    """Tell every caller of the REST API where it stands."""
    app.after_request(_tell)


def _name(caller: Caller | None) -> str:
    """Under which name a caller is counted: its key (and those that the key replaced), the person, the token's subject, the
    address."""
    known = caller and (caller.quota_id or caller.key_id)
    if known:
        return known
    parts = (caller.tenant_id, caller.name) if caller and (caller.user or caller.subject) else (request.remote_addr or "",)
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _tell(response: Response) -> Response:
    window = present_window()
    if window is not None and request.path.startswith("/api/"):
        response.headers.update(window.headers)
    return response
