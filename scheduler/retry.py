"""What becomes of a job whose attempt failed: again later, or failed for good.

| class | examples | policy |
|---|---|---|
| input | picture cannot be read, prompt the model cannot take | failed at once |
| model | weights missing or corrupt | failed at once as `model_invalid` |
| resource | out of memory after all tiers | failed at once, says what would fit |
| infrastructure | store away, device error, disk full | again with backoff, ten times as often: about 45 minutes |
| unknown | any other exception | again with backoff, up to `max_attempts` |
| crash | the worker died with it | again alone, up to `max_crashes`, then `poison` |
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from imagefarm.settings import Settings
from imagefarm.states import JobState
from imagefarm.store import db_now
from imagefarm.store.models import Job
from scheduler.transition import Moved, move

BACKOFF_FIRST_S = 1.0
BACKOFF_MOST_S = 60.0
INFRASTRUCTURE_PATIENCE = 10
"""How many times `max_attempts` a job survives what is not its own fault; not for ever, since a job may itself be what breaks
the device."""


class FailureClass(StrEnum):
    INPUT = "input"
    MODEL = "model"
    RESOURCE = "resource"
    INFRASTRUCTURE = "infrastructure"
    UNKNOWN = "unknown"


FINAL_CLASSES = frozenset({FailureClass.INPUT, FailureClass.MODEL, FailureClass.RESOURCE})


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed. `code` is stable (`model_invalid`, `oom`, `nan_output`, ...), `detail` is for people."""

    kind: FailureClass
    code: str
    detail: str


def backoff_s(attempt: int, *, jitter: float | None = None) -> float:
    """Seconds before attempt `attempt` + 1: 1, 2, 4 ... 60, each times 0.5 to 1 so that a crowd does not come back at once."""
    spread = random.uniform(0.5, 1.0) if jitter is None else jitter  # noqa: S311 - not a secret
    return spread * min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** max(0, attempt - 1))


def after_failure(session: Session, fence: tuple[str, int, str], failure: Failure, settings: Settings) -> Moved | None:
    """End an attempt that failed: the job goes back to the queue or fails for good. None if the attempt was fenced off."""
    job_id, attempt, owner = fence
    where = [Job.id == job_id, Job.attempt == attempt, Job.owner == owner]
    patience = INFRASTRUCTURE_PATIENCE if failure.kind is FailureClass.INFRASTRUCTURE else 1
    may_retry = failure.kind not in FINAL_CLASSES and attempt < settings.max_attempts * patience
    if may_retry:
        moved = move(
            session,
            where,
            JobState.RUNNING,
            JobState.QUEUED,
            event="job.requeued",
            data={"reason": failure.code},
            outcome="retry",
            reason=f"{failure.code}: {failure.detail}",
            not_before=db_now() + backoff_s(attempt),
        )
    else:
        moved = move(
            session,
            where,
            JobState.RUNNING,
            JobState.FAILED,
            event="job.failed",
            data={"reason": failure.code, "class": str(failure.kind)},
            outcome="failed",
            reason=f"{failure.code}: {failure.detail}",
            error_code=failure.code,
            error_detail=failure.detail[:2000],
        )
    return moved[0] if moved else None


def crashed(session: Session, where: Sequence[ColumnElement[bool]], settings: Settings, reason: str) -> list[Moved]:
    """The worker died with these running jobs: those that did so too often are poison, the rest goes back to the queue."""
    poison = move(
        session,
        [*where, Job.crashes >= settings.max_crashes - 1],
        JobState.RUNNING,
        JobState.FAILED,
        event="job.failed",
        data={"reason": "poison"},
        outcome="crashed",
        reason=reason,
        crashes=Job.crashes + 1,
        error_code="poison",
        error_detail=f"its worker died {settings.max_crashes} times while rendering it; the last time: {reason}",
    )
    again = move(
        session,
        where,
        JobState.RUNNING,
        JobState.QUEUED,
        event="job.requeued",
        data={"reason": "crashed"},
        outcome="crashed",
        reason=reason,
        crashes=Job.crashes + 1,
    )
    return poison + again
