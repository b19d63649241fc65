"""A batch as pages show it: counts as a bar, rate and expected end, errors grouped, and its contact sheet in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.pages.job_cards import Picture, picture
from imagefarm.states import BatchState, JobState
from imagefarm.store import db_now, jobs
from imagefarm.store.models import Batch, Job
from scheduler.batches import lifecycle

SHEET = 60
"""Jobs of one piece of a contact sheet."""
RATE_S = 60.0
BAR = (JobState.SUCCEEDED, JobState.RUNNING, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED, JobState.HELD)
STARTED = (BatchState.QUEUED, BatchState.RUNNING)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the bar: a state, its jobs, where it begins and how wide it is, in percent."""

    state: str
    number: int
    start: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCard:
    """A batch with the numbers of its jobs."""

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
        """How many jobs are in these states."""
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


REMEDIES = {
    "oom": "Ask for a smaller picture, or let a worker with more memory serve the model; then retry.",
    "poison": "These jobs brought their workers down. Look at one of them, change what is odd about it, and submit it anew.",
    "nan_output": "The model made no valid picture. Another seed or fewer steps may do; retrying renders the same.",
    "flat_output": "The pictures were one plain colour. Another prompt or seed may do; retrying renders the same.",
    "model_invalid": "Mend the model's files on the workers, then retry.",
    "expired": "No worker came to them in time. Retry them, or give them longer.",
    "storage": "The store of the pictures did not take them. See that it is there and has room, then retry.",
    "device_error": "A worker's device failed. Look at the workers, then retry.",
    "deadline": "They took longer than they may. Ask for fewer steps or a smaller picture.",
    "fetch_failed": "A picture's address did not answer. See that it can be reached, then retry.",
}
"""By error code."""


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Jobs that failed for one reason. `detail` is that of one of them."""

    code: str
    number: int
    detail: str

    @property
    def remedy(self) -> str:
        """What a person can do about it, in a sentence; empty where the detail says all."""
        return REMEDIES.get(self.code, "")


@dataclass(frozen=True, slots=True)
class Cell:
    """A job of the contact sheet."""

    id: str
    title: str
    state: str
    pictures: tuple[Picture, ...]

    @property
    def pending(self) -> bool:
        return not JobState(self.state).is_final


@dataclass(frozen=True, slots=True)
class Sheet:
    """A piece of a contact sheet. `after` is the id before its first job, `next_after` that before the next piece."""

    batch_id: str
    after: str
    cells: tuple[Cell, ...]
    next_after: str | None


def batch_cards(session: Session, batches: Sequence[Batch]) -> tuple[BatchCard, ...]:
    """These batches with the numbers of their jobs."""
    numbers = lifecycle.counts(session, list(batches))
    return tuple(_card(batch, numbers[batch.id]) for batch in batches)


def error_groups(session: Session, batch_id: str) -> tuple[ErrorGroup, ...]:
    """Why jobs of a batch failed, the most common reason first."""
    rows = session.execute(
        select(Job.error_code, func.count(), func.min(Job.error_detail))
        .where(Job.batch_id == batch_id, Job.state == JobState.FAILED)
        .group_by(Job.error_code)
        .order_by(func.count().desc())
    )
    return tuple(ErrorGroup(code or "unknown", number, detail or "") for code, number, detail in rows)


def rate_per_minute(session: Session, batch_id: str) -> int:
    """Jobs of a batch that ended in the last minute."""
    recent = select(func.count()).where(
        Job.batch_id == batch_id, Job.state == JobState.SUCCEEDED, Job.finished_at > db_now() - RATE_S
    )
    return session.scalar(recent) or 0


def sheet(session: Session, batch_id: str, after: str) -> Sheet:
    """A piece of the contact sheet, in the order of the table."""
    found = session.scalars(select(Job).where(Job.batch_id == batch_id, Job.id > after).order_by(Job.id).limit(SHEET + 1)).all()
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
        state = BatchState.RUNNING  # the sweep will write it down
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
