"""A service's log file, bounded in size, and the filter of the warnings that an operator sees at once."""

from __future__ import annotations

import json
import re
import time
from io import BufferedWriter
from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024
"""Bytes. At this size the file is renamed to NAME.1, replacing the previous one, and a new file begins."""
LOUD = frozenset({"warning", "error", "critical"})
MAX_LINE_CHARS = 300
QUIET_S = 60.0
"""Seconds. A repeated warning is shown at most this often."""
PARTICULARS = re.compile(r"[0-9a-fA-F]{8}[0-9a-fA-F-]*|\b[a-z]+_[0-9A-Z]{26}\b|\d+(\.\d+)?")
"""Ids and numbers. Warnings that differ only in these are of one kind."""


class LogFile:
    """Appends lines to `path`. Use it from one thread only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BufferedWriter | None = None

    def write(self, line: str) -> None:
        """Append one line."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        if self._file.tell() > MAX_BYTES:
            self._file.close()
            self._file = None
            self.path.replace(self.path.with_name(self.path.name + ".1"))


class Repeats:
    """Passes the first warning of a kind, and then one per `QUIET_S` with the number of warnings that were suppressed."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[float, int]] = {}

    def filter(self, warning: str, now: float | None = None) -> str | None:
        """The warning to show at `now` (seconds, any origin), or None if it is suppressed."""
        now = time.monotonic() if now is None else now
        kind = PARTICULARS.sub("#", warning)
        shown_at, suppressed = self._kinds.get(kind, (-QUIET_S, 0))
        if now - shown_at < QUIET_S:
            self._kinds[kind] = (shown_at, suppressed + 1)
            return None
        self._kinds[kind] = (now, 0)
        return f"{warning} (and {suppressed} more like it)" if suppressed else warning


def as_warning(line: str) -> str | None:
    """The line as one readable sentence if it is a structured warning or error, otherwise None."""
    if not line.startswith("{"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or entry.get("level") not in LOUD:
        return None
    facts = [
        f"{key}={value}" for key, value in entry.items() if key not in {"event", "level", "timestamp", "service", "exception"}
    ]
    trace = str(entry.get("exception", "")).strip().splitlines()[-1:]  # the last line has the error, the others its place
    text = " ".join([str(entry.get("event", "")), *facts, *trace])
    return " ".join(text.split())[:MAX_LINE_CHARS]
