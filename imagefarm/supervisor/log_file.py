"""A service's log file, bounded in size, and which of its lines an operator should see at once."""

from __future__ import annotations

import json
import re
import time
from io import BufferedWriter
from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024
"""At this size the file becomes NAME.1 and a new one begins: two of them at most."""
LOUD = frozenset({"warning", "error", "critical"})
MAX_LINE_CHARS = 300
QUIET_S = 60.0
"""A warning that comes again is told at most this often."""
PARTICULARS = re.compile(r"[0-9a-fA-F]{8}[0-9a-fA-F-]*|\b[a-z]+_[0-9A-Z]{26}\b|\d+(\.\d+)?")
"""What differs between two warnings of one kind: ids and numbers."""


class LogFile:
    """Appends lines to `path`; used by one thread."""

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
    """Lets the first warning of a kind through, and then one in `QUIET_S` that says how many there were."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[float, int]] = {}

    def filter(self, warning: str, now: float | None = None) -> str | None:
        """The warning as it should be told at `now` (seconds, any origin), or None to keep quiet."""
        now = time.monotonic() if now is None else now
        kind = PARTICULARS.sub("#", warning)
        told_at, held_back = self._kinds.get(kind, (-QUIET_S, 0))
        if now - told_at < QUIET_S:
            self._kinds[kind] = (told_at, held_back + 1)
            return None
        self._kinds[kind] = (now, 0)
        return f"{warning} (and {held_back} more like it)" if held_back else warning


def as_warning(line: str) -> str | None:
    """The line in one readable sentence if it is a structured warning or worse, else None."""
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
    trace = str(entry.get("exception", "")).strip().splitlines()[-1:]  # the last line says what, the rest where
    text = " ".join([str(entry.get("event", "")), *facts, *trace])
    return " ".join(text.split())[:MAX_LINE_CHARS]
