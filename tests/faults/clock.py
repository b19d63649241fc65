"""A clock of PostgreSQL's own that a test can set (see hooks/jumping_clock.c). Needs a C compiler."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).parent / "hooks" / "jumping_clock.c"


class Clock:
    """The time of day as the processes see it that were started within `worn`."""

    def __init__(self, folder: Path) -> None:
        self.library, self.file = folder / "clock.so", folder / "clock"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(self.library), str(SOURCE)], check=True)
        self.file.write_bytes(struct.pack("q", 0))
        self.ahead_s = 0

    def jump(self, seconds: int) -> None:
        """Set it forward, or with a negative number back."""
        self.ahead_s += seconds
        with self.file.open("r+b") as file:
            file.write(struct.pack("q", self.ahead_s))

    @contextmanager
    def worn(self) -> Iterator[None]:
        """Processes started in the block have this clock, and so have those that they start."""
        os.environ |= {"LD_PRELOAD": str(self.library), "FARM_FAULTS_CLOCK_FILE": str(self.file)}
        try:
            yield
        finally:
            del os.environ["LD_PRELOAD"], os.environ["FARM_FAULTS_CLOCK_FILE"]
