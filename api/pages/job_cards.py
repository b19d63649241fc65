"""A job on a page: its images, prompt, state, and the reason for its state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.http.context import AppContext
from imagefarm.states import JobState
from imagefarm.store import Session, jobs
from imagefarm.store.models import Image, Job
from scheduler.queue.pending_reason import PendingReason


@dataclass(frozen=True, slots=True)
class Picture:
    """One finished image."""

    id: str
    seed: str
    width: int
    height: int

    @property
    def thumb(self) -> str:
        return f"/api/v1/images/{self.id}/file?thumb=256"

    @property
    def small(self) -> str:
        return f"/api/v1/images/{self.id}/file?thumb=128"

    @property
    def file(self) -> str:
        return f"/api/v1/images/{self.id}/file"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCard:
    """One job of a list. Times are seconds since 1970."""

    id: str
    state: str
    prompt: str
    model: str
    width: int
    height: int
    count: int
    batch_id: str | None
    custom_id: str | None
    tenant_id: str
    priority: str
    pictures: tuple[Picture, ...]
    pending_reason: PendingReason
    step: int
    steps: int
    attempt: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    warnings: tuple[str, ...]

    @property
    def is_open(self) -> bool:
        return not JobState(self.state).is_final

    @property
    def may_retry(self) -> bool:
        return self.state in {JobState.FAILED, JobState.CANCELLED}


def picture(image: Image) -> Picture:
    """Convert an image of the database to one of a page."""
    return Picture(image.id, image.seed, image.width, image.height)


def job_cards(session: Session, app_context: AppContext, rows: Sequence[Job]) -> tuple[JobCard, ...]:
    """Convert jobs to cards with their images, progress and pending reasons."""
    images = jobs.images_of(session, [job.id for job in rows])
    steps = app_context.progress.read([job.id for job in rows if job.state == JobState.RUNNING])
    return tuple(
        JobCard(
            id=job.id,
            state=job.state,
            prompt=job.prompt,
            model=job.model,
            width=int(job.recipe["width"]),
            height=int(job.recipe["height"]),
            count=job.count,
            batch_id=job.batch_id,
            custom_id=job.custom_id,
            tenant_id=job.tenant_id,
            priority=job.priority_class,
            pictures=tuple(picture(image) for image in images[job.id]),
            pending_reason=reason,
            step=min(steps.get(job.id, 0), int(job.recipe["steps"])),
            steps=int(job.recipe["steps"]),
            attempt=job.attempt,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            warnings=tuple(map(str, job.warnings)),
        )
        for job, reason in zip(rows, app_context.pending_reasons.explain_all(session, rows), strict=True)
    )
