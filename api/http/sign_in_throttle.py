"""Guessing passwords and keys at the sign-in page is slow: so many failures, then a pause.

Failures are counted in Redis for all processes together, and in this process while Redis is away.
"""

from __future__ import annotations

import hashlib
import time
from threading import Lock

from redis import Redis
from redis.exceptions import RedisError

from imagefarm.errors import LimitExceeded

WINDOW_S = 900
MAX_PER_ADDRESS_AND_NAME = 10
"""Failures from one address with one name; a name alone has more, so that nobody shuts somebody else out."""
MAX_PER_ADDRESS = 50
MAX_PER_NAME = 200

_here: dict[str, tuple[int, float]] = {}
_lock = Lock()


def check(redis: Redis, prefix: str, address: str, name: str) -> None:
    """Raise LimitExceeded if there were too many failures of late."""
    for key, max_failures in _keys(prefix, address, name):
        failures, left = _read(redis, key)
        if failures >= max_failures:
            detail = f"{failures} attempts to sign in failed within {WINDOW_S // 60} minutes; wait {left:.0f} s"
            raise LimitExceeded(detail, limit="sign_in_failures", value=max_failures, retry_after=left)


def failed(redis: Redis, prefix: str, address: str, name: str) -> None:
    """Count a failure."""
    for key, _ in _keys(prefix, address, name):
        try:
            pipe = redis.pipeline(transaction=True)
            pipe.set(key, 0, nx=True, ex=WINDOW_S)
            pipe.incr(key)
            pipe.execute()
        except (RedisError, OSError):
            with _lock:
                if len(_here) > 10_000:
                    _here.clear()
                number, until = _here.get(key, (0, 0.0))
                now = time.monotonic()
                _here[key] = (number + 1, until) if until > now else (1, now + WINDOW_S)


def _read(redis: Redis, key: str) -> tuple[int, float]:
    with _lock:
        number, until = _here.get(key, (0, 0.0))
    here = (number, until - time.monotonic()) if until > time.monotonic() else (0, 0.0)
    try:
        pipe = redis.pipeline(transaction=False)
        pipe.get(key)
        pipe.ttl(key)
        told, left = pipe.execute()
    except (RedisError, OSError):
        return here
    return max(here, (int(told or 0), max(1.0, float(left))))


def _keys(prefix: str, address: str, name: str) -> tuple[tuple[str, int], ...]:
    def key(*parts: str) -> str:
        return f"{prefix}:sign-in:{hashlib.sha256(repr(parts).encode('utf-8', 'backslashreplace')).hexdigest()[:32]}"

    return (
        (key(address, name), MAX_PER_ADDRESS_AND_NAME),
        (key("from", address), MAX_PER_ADDRESS),
        (key("of", name), MAX_PER_NAME),
    )
