"""The limit of requests per minute, counted in Redis for all API processes together.

The window begins with each clock minute. While a caller is far below its limit, this process counts its requests locally and
reports them to Redis in groups, so most requests need no round trip. Near the limit each request is counted in Redis. When Redis
does not respond in time the request passes unchecked, because the limit protects callers from each other and must not make the
farm unavailable. `unchecked` counts those requests.
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
"""Timeout of a count in Redis, in seconds."""
PAUSE_S = 2.0
"""Seconds without Redis calls after a failure, so that not every request waits for the timeout."""
LOG_EVERY_S = 60.0
HELD = 16
"""Requests of one caller that a process counts before it reports them to Redis. Each process may exceed the limit by this
number."""
MAX_CALLERS = 10_000
PLENTY = 20 * HELD
"""Requests that a caller must have left for local counting. With fewer left, each request is counted in Redis."""
HEADERS = {
    "RateLimit-Policy": 'The limit of requests: `"requests";q=30000;w=60` means 30,000 in 60 s. Absent without a limit.',
    "RateLimit": 'The remaining requests: `"requests";r=29990;t=42` means 29,990 within the next 42 s.',
}
"""Headers that state the limit, after the IETF's draft-ietf-httpapi-ratelimit-headers."""


class Window(NamedTuple):
    """A caller's requests in the current minute: the limit, the number used, and the seconds until the minute ends."""

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
    """This process's count of a caller's current minute: Redis's last count (`known`) and requests not yet reported (`more`)."""

    minute: int
    known: int
    more: int


class RequestLimit:
    """Counts the requests of one process in the Redis that all processes share."""

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
        """Requests that passed uncounted since this process started."""

    def count(self, who: str) -> Window | None:
        """Count a request of caller `who` and return its window; None without a limit, or when Redis is unavailable."""
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
                held = Held(int(minute), max_requests, 0)  # first request of this minute: ask Redis
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
        """Seconds until Redis is asked again after a failure; 0 if it is asked now."""
        return max(0.0, self._ask_again_at - monotonic())

    def close(self) -> None:
        """Close the Redis connections."""
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
    """Count the current request once, for its caller, or for its address if the caller is unknown. Raises LimitExceeded."""
    if "request_window" in g:
        return
    g.request_window = window = limit.count(_name(caller))
    if window is not None and window.used > window.max_requests:
        detail = f"one caller may send {window.max_requests} requests per minute; the next minute begins in {window.left_s} s"
        raise LimitExceeded(detail, limit="requests_per_minute", value=window.max_requests, retry_after=window.left_s)


def present_window() -> Window | None:
    """The window of the current request's caller; None if the request was not counted."""
    window: Window | None = g.get("request_window")
    return window


def init_app(app: Flask) -> None:
    """Add the limit's headers to every REST response."""
    app.after_request(_tell)


def _name(caller: Caller | None) -> str:
    """The name under which a caller is counted: its API key (or the key it replaced), user, token subject, or address."""
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
