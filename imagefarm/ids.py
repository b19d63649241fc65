"""Identifiers: a prefix that names the kind, then 26 characters that sort by time (ULID, https://github.com/ulid/spec)."""

from __future__ import annotations

import re
import secrets
import threading
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
PATTERN = re.compile(r"[a-z]{3,8}_[0-9A-HJKMNP-TV-Z]{26}")

_lock = threading.Lock()
_last = (0, 0)


def new_id(prefix: str) -> str:
    """Return e.g. `job_01JD...`. Ids made by one process are strictly increasing, also within a millisecond."""
    global _last  # noqa: PLW0603 - the one piece of state monotonic ids need
    with _lock:
        millis = max(time.time_ns() // 1_000_000, _last[0])
        tail = _last[1] + 1 if millis == _last[0] else secrets.randbits(79)
        _last = (millis, tail)
    return f"{prefix}_{_encode((millis << 80) | tail)}"


def is_id(text: str, prefix: str) -> bool:
    """True if `text` has the form of an id of this kind. The id need not exist."""
    return text.startswith(prefix + "_") and PATTERN.fullmatch(text) is not None


def first_id_at(prefix: str, seconds: float) -> str:
    """The smallest id that could be made at that time (seconds since 1970). Ids sort by time."""
    millis = min(max(int(seconds * 1000), 0), 2**48 - 1)
    return f"{prefix}_{_encode(millis << 80)}"


def _encode(number: int) -> str:
    return "".join([PAIRS[(number >> place) & 1023] for place in range(120, -1, -10)])
