"""The view of a batch: a bar of its jobs by state, and its contact sheet in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.pages.job_cards import Picture, picture
from imagefarm.states import BatchState, JobState
from imagefarm.store import Session, jobs
from imagefarm.store.models import Batch
from scheduler.batches import lifecycle

SHEET = 60
"""Jobs of one chunk of a contact sheet."""
BAR = (JobState.SUCCEEDED, JobState.RUNNING, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED, JobState.HELD)
STARTED = (BatchState.QUEUED, BatchState.RUNNING)


@dataclass(frozen=True, slots=True)
class Part:
    """A segment of the bar: a state, its number of jobs, and start and width in percent."""

    state: str
    number: int
    start: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCard:
    """A batch with the numbers of its jobs by state."""

    id: str
    name: str
    state: str
    template: str
    rows: int
    accepted: int
    rejected: int
    parts: tuple[Part, ...]
    created_at: float
    finished_at: float | None
    approved: bool

    def number(self, *states: str) -> int:
        """The number of jobs in these states."""
        return sum(part.number for part in self.parts if part.state in states)

    @property
    def ended(self) -> int:
        return self.number(JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)

    @property
    def open(self) -> int:
        return self.accepted - self.ended

    @property
    def may_pause(self) -> bool:
        return self.state in STARTED

    @property
    def may_resume(self) -> bool:
        return self.state == BatchState.PAUSED

    @property
    def may_approve(self) -> bool:
        return self.state == BatchState.HELD and not self.approved

    @property
    def may_cancel(self) -> bool:
        return self.state not in {BatchState.DONE, BatchState.CANCELLED}


@dataclass(frozen=True, slots=True)
class Cell:
    """One job of the contact sheet."""

    id: str
    title: str
    state: str
    pictures: tuple[Picture, ...]

    @property
    def pending(self) -> bool:
        return not JobState(self.state).is_final


@dataclass(frozen=True, slots=True)
class Sheet:
    """A chunk of a contact sheet: the jobs after the id `after`. `next_after` begins the next chunk, None on the last."""

    batch_id: str
    after: str
    cells: tuple[Cell, ...]
    next_after: str | None


def batch_cards(session: Session, batches: Sequence[Batch]) -> tuple[BatchCard, ...]:
    """Convert batches to cards with the numbers of their jobs."""
    numbers = lifecycle.counts(session, list(batches))
    return tuple(_card(batch, numbers[batch.id]) for batch in batches)


def sheet(session: Session, batch_id: str, after: str) -> Sheet:
    """Return a chunk of the contact sheet, in the order of the table."""
    found = jobs.jobs_of_batch(session, batch_id, after=after, limit=SHEET + 1)
    shown = found[:SHEET]
    images = jobs.images_of(session, [job.reuses or job.id for job in shown])
    cells = tuple(
        Cell(
            job.id,
            job.name or job.custom_id or str(job.labels.get("sku") or job.prompt),
            job.state,
            tuple(picture(image) for image in images[job.reuses or job.id]),
        )
        for job in shown
    )
    return Sheet(batch_id, after, cells, shown[-1].id if len(found) > SHEET else None)


def _card(batch: Batch, numbers: dict[str, int]) -> BatchCard:
    parts, start = [], 0.0
    for job_state in BAR:
        width = 100 * numbers[job_state] / max(1, batch.accepted)
        parts.append(Part(str(job_state), numbers[job_state], round(start, 3), round(width, 3)))
        start += width
    state = BatchState(batch.state)
    if state == BatchState.QUEUED and (numbers[JobState.RUNNING] or numbers[JobState.SUCCEEDED] or numbers[JobState.FAILED]):
        state = BatchState.RUNNING  # the sweep stores this state later
    return BatchCard(
        id=batch.id,
        name=batch.name,
        state=state,
        template=batch.template,
        rows=batch.rows,
        accepted=batch.accepted,
        rejected=batch.rejected,
        parts=tuple(parts),
        created_at=batch.created_at,
        finished_at=batch.finished_at,
        approved=bool(batch.options.get("approved", True)),
    )
