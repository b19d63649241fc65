"""The throttle of the sign-in page: after a number of failures, sign-in pauses, which makes guessing passwords and keys slow.

Redis counts the failures of all processes together. While Redis is unavailable each process counts its own.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from functools import lru_cache

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis import Redis
from redis.exceptions import RedisError

from imagefarm.errors import LimitExceeded

WINDOW_S = 900
MAX_PER_ADDRESS_AND_NAME = 10
"""Failures from one address with one name. The limit of a name alone is higher, so nobody can easily lock out another person."""
MAX_PER_ADDRESS = 50
MAX_PER_NAME = 200
MAX_LOCAL_COUNTS = 10_000
"""Counts that one process keeps. At this number all local counts are reset."""


def check(redis: Redis, prefix: str, address: str, name: str) -> None:
    """Raise LimitExceeded if this address or name failed to sign in too often within the last 15 minutes."""
    for limit, identifier in _limits(address, name):
        left_s = max(_pause_s(_local(), limit, identifier), _shared_pause_s(redis, prefix, limit, identifier))
        if left_s > 0:
            detail = f"{limit.amount} attempts to sign in failed within {WINDOW_S // 60} minutes; wait {left_s:.0f} s"
            raise LimitExceeded(detail, limit="sign_in_failures", value=limit.amount, retry_after=left_s)


def failed(redis: Redis, prefix: str, address: str, name: str) -> None:
    """Count a failed sign-in of this address and name."""
    for limit, identifier in _limits(address, name):
        try:
            _shared(redis, prefix).hit(limit, identifier)
        except (RedisError, OSError):
            _count_here(limit, identifier)


def _limits(address: str, name: str) -> Iterator[tuple[RateLimitItemPerSecond, str]]:
    for max_failures, parts in (
        (MAX_PER_ADDRESS_AND_NAME, (address, name)),
        (MAX_PER_ADDRESS, ("from", address)),
        (MAX_PER_NAME, ("of", name)),
    ):
        identifier = hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()[:32]
        yield RateLimitItemPerSecond(max_failures, WINDOW_S), identifier


def _pause_s(limiter: FixedWindowRateLimiter, limit: RateLimitItemPerSecond, identifier: str) -> float:
    """Seconds until the window ends; 0 while the limit is not reached."""
    window = limiter.get_window_stats(limit, identifier)
    return max(1.0, window.reset_time - time.time()) if window.remaining == 0 else 0.0


def _shared_pause_s(redis: Redis, prefix: str, limit: RateLimitItemPerSecond, identifier: str) -> float:
    try:
        return _pause_s(_shared(redis, prefix), limit, identifier)
    except (RedisError, OSError):
        return 0.0


def _count_here(limit: RateLimitItemPerSecond, identifier: str) -> None:
    counts = _local_counts()
    if len(counts.storage) >= MAX_LOCAL_COUNTS:
        counts.reset()
    _local().hit(limit, identifier)


@lru_cache(maxsize=4)
def _shared(redis: Redis, prefix: str) -> FixedWindowRateLimiter:
    """The counts in Redis that all processes share."""
    counts = RedisStorage("redis://", connection_pool=redis.connection_pool, key_prefix=f"{prefix}:sign-in")
    return FixedWindowRateLimiter(counts)


@lru_cache(maxsize=1)
def _local_counts() -> MemoryStorage:
    return MemoryStorage()


@lru_cache(maxsize=1)
def _local() -> FixedWindowRateLimiter:
    return FixedWindowRateLimiter(_local_counts())
