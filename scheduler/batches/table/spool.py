"""Stores planned jobs on disk between reading and writing, in chunks, so that memory holds one chunk of a table at a time."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from scheduler.queue.new_job import NewJob

CHUNK_JOBS = 500
"""Jobs per transaction: few, so that single submits run between two."""
CHUNK_ROWS = 500
CHUNK_CHARS = 2_000_000


@dataclass(slots=True)
class PlannedJob:
    """The fields that differ between jobs of one table. The other fields are in the chunk's base job number `base`."""

    row: int
    base: int
    prompt: str
    seed: int
    recipe_hash: str
    labels: dict[str, str]
    custom_id: str | None
    name: str | None
    change: str = ""
    """The change against the batch that this one updates; empty if there is none."""
    from_image: str | None = None
    """The id of the draft that the job renders as a final."""


@dataclass(slots=True)
class Chunk:
    """Some rows of the table with their jobs.

    `bases` are jobs without the fields that differ; `rows` are [number, cells, errors or null] as read.
    """

    bases: list[NewJob] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    jobs: list[PlannedJob] = field(default_factory=list)
    chars: int = 0

    _numbers: dict[int, int] = field(default_factory=dict)

    def add_row(self, number: int, cells: dict[str, Any], errors: list[list[str]] | None) -> None:
        """Add a row as read."""
        self.rows.append([number, cells, errors])
        self.chars += sum(len(str(cell)) for cell in cells.values())

    def add_job(self, job: PlannedJob, base: NewJob) -> None:
        """Add a job; `base` holds the fields that it shares with other jobs."""
        job.base = self._numbers.setdefault(id(base), len(self.bases))
        if job.base == len(self.bases):
            self.bases.append(base)  # kept alive, so that its id() is not reused
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
        """Append a chunk."""
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
