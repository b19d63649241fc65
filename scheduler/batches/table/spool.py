"""Planned jobs between reading and writing: on disk, in chunks, so that memory holds one chunk of a table at a time."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from scheduler.queue.new_job import NewJob

CHUNK_JOBS = 500
"""Jobs that one transaction writes: few, so that single submits get their turn between two."""
CHUNK_ROWS = 500
CHUNK_CHARS = 2_000_000


@dataclass(slots=True)
class PlannedJob:
    """What differs between jobs of one table; the rest of the job is the chunk's base number `base`."""

    row: int
    base: int
    prompt: str
    seed: int
    recipe_hash: str
    labels: dict[str, str]
    custom_id: str | None
    name: str | None
    change: str = ""
    """Against the batch that this one brings up to date."""
    from_image: str | None = None
    """The draft that it renders finally."""


@dataclass(slots=True)
class Chunk:
    """Some rows of the table with the jobs that they became.

    `bases` are jobs without what differs; `rows` are [number, cells, errors or null] as they were read.
    """

    bases: list[NewJob] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    jobs: list[PlannedJob] = field(default_factory=list)
    chars: int = 0

    _numbers: dict[int, int] = field(default_factory=dict)

    def add_row(self, number: int, cells: dict[str, Any], errors: list[list[str]] | None) -> None:
        """Keep a row as it was read."""
        self.rows.append([number, cells, errors])
        self.chars += sum(len(str(cell)) for cell in cells.values())

    def add_job(self, job: PlannedJob, base: NewJob) -> None:
        """Keep a job; `base` is what it shares with others of the same recipe fields."""
        job.base = self._numbers.setdefault(id(base), len(self.bases))
        if job.base == len(self.bases):
            self.bases.append(base)  # kept, so its id stays its own
        self.jobs.append(job)
        self.chars += len(job.prompt)

    @property
    def is_full(self) -> bool:
        return len(self.jobs) >= CHUNK_JOBS or len(self.rows) >= CHUNK_ROWS or self.chars >= CHUNK_CHARS


class Spool:
    """A temporary file of chunks. Closing it removes it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def write(self, chunk: Chunk) -> None:
        """Add a chunk."""
        jobs = [
            [j.row, j.base, j.prompt, j.seed, j.recipe_hash, j.labels, j.custom_id, j.name, j.change, j.from_image]
            for j in chunk.jobs
        ]
        self._file.write(json.dumps({"bases": chunk.bases, "rows": chunk.rows, "jobs": jobs}))
        self._file.write("\n")

    def __iter__(self) -> Iterator[Chunk]:
        self._file.seek(0)
        for line in self._file:
            data = json.loads(line)
            yield Chunk([NewJob(*base) for base in data["bases"]], data["rows"], [PlannedJob(*job) for job in data["jobs"]])

    def close(self) -> None:
        self._file.close()
