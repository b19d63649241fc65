"""Decides after a failed attempt: the job is retried, or fails permanently.

| class | examples | policy |
|---|---|---|
| input | image cannot be read, prompt the model cannot take | failed at once |
| model | weights missing or corrupt | failed at once as `model_invalid` |
| resource | out of memory after all tiers | failed at once, with what would fit |
| infrastructure | store away, device error, disk full | retried with backoff, ten times as often: about 45 minutes |
| unknown | any other exception | retried with backoff, up to `max_attempts` |
| crash | the worker died with it | retried alone, up to `max_crashes`, then `poison`; see `requeue_after_crash` |
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, String, cast, func, literal, select
from sqlalchemy.orm import Session

from imagefarm.settings import Settings
from imagefarm.states import JobState
from imagefarm.store import db_now
from imagefarm.store.models import Attempt, Job
from scheduler.queue.transition import ChangedJob, change_state, chunks

FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
DEATHS_LATELY_S = 600.0
"""Seconds of history in which worker deaths without the suspected job count."""
INFRASTRUCTURE_ATTEMPTS_FACTOR = 10
"""How many times `max_attempts` a job survives failures of the infrastructure. Not forever, because a job may itself break the
device."""


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


def backoff_s(tries: int, *, jitter: float | None = None) -> float:
    """Seconds to wait after `tries` failures: 1, 2, 4 ... 60, each times 0.5 to 1 so that retries spread out."""
    spread = random.uniform(0.5, 1.0) if jitter is None else jitter  # noqa: S311 - not a secret
    return spread * min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** max(0, tries - 1))


def after_failure(session: Session, fence: tuple[str, int, str], failure: Failure, settings: Settings) -> ChangedJob | None:
    """End a failed attempt: the job goes back to the queue or fails for good. None if the attempt was fenced off."""
    job_id, attempt, owner = fence
    where = [Job.id == job_id, Job.attempt == attempt, Job.owner == owner]
    factor = INFRASTRUCTURE_ATTEMPTS_FACTOR if failure.kind is FailureClass.INFRASTRUCTURE else 1
    tries = _tries(session, job_id) + 1
    may_retry = failure.kind not in FINAL_CLASSES and tries < settings.max_attempts * factor
    if may_retry:
        changed = change_state(
            session,
            where,
            JobState.RUNNING,
            JobState.QUEUED,
            event="job.requeued",
            data={"reason": failure.code},
            outcome="retry",
            reason=f"{failure.code}: {failure.detail}",
            not_before=db_now() + backoff_s(tries),
        )
    else:
        changed = change_state(
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
    return changed[0] if changed else None


def _tries(session: Session, job_id: str) -> int:
    """Failed attempts since the job was submitted or retried. Attempts that were given back or died with their worker do not
    count, so workers may be restarted any number of times.
    """
    ended = select(func.coalesce(func.max(Attempt.attempt), 0)).where(
        Attempt.job_id == job_id, Attempt.outcome.in_(["failed", "cancelled"])
    )
    failed = select(func.count()).where(
        Attempt.job_id == job_id, Attempt.outcome == "retry", Attempt.attempt > ended.scalar_subquery()
    )
    return session.scalar(failed) or 0


def requeue_after_crash(
    session: Session, where: Sequence[ColumnElement[bool]], settings: Settings, reason: str, *, self_inflicted: bool = False
) -> list[ChangedJob]:
    """Handle the death of a worker with these running jobs: poisonous jobs fail, the others go back to the queue.

    A job that was present at a death is a suspect and is claimed alone from then on. A suspect that was not alone when its worker
    died had not started, so that death does not count. A job that was present at `max_crashes` deaths, alone in all but the
    first,
    is poison if such deaths prove it. They do if the process ended `self_inflicted`: by a signal that it raised itself, or by an
    exit. A process that was killed or vanished may have been killed because of the job (which used up its memory) or for an
    unrelated
    reason. That proves something only if no worker died without the job in the last minutes; otherwise the job needs twice as
    many
    deaths.
    """
    lost = session.execute(select(Job.id, Job.owner, Job.crashes).where(Job.state == JobState.RUNNING, *where)).all()
    owners = {row.owner for row in lost}
    holding = dict(
        session.execute(
            select(Job.owner, func.count()).where(Job.state == JobState.RUNNING, Job.owner.in_(owners)).group_by(Job.owner)
        ).all()
    )
    poison, again, not_blamed = [], [], []
    for job_id, owner, crashes in lost:
        if crashes and holding[owner] > 1:
            not_blamed.append(job_id)
        elif crashes + 1 >= settings.max_crashes and (
            self_inflicted or crashes + 1 >= 2 * settings.max_crashes or not _workers_die_without(session, job_id)
        ):
            poison.append(job_id)
        else:
            again.append(job_id)
    changed: list[ChangedJob] = []
    for ids in chunks(poison):
        changed += change_state(
            session,
            [*where, Job.id.in_(ids)],
            JobState.RUNNING,
            JobState.FAILED,
            event="job.failed",
            data={"reason": "poison"},
            outcome="crashed",
            reason=reason,
            crashes=Job.crashes + 1,
            error_code="poison",
            error_detail=literal("its worker died ")
            + cast(Job.crashes + 1, String)
            + literal(f" times while rendering it; the last time: {reason}"),
        )
    for group, more in ((again, 1), (not_blamed, 0)):
        for ids in chunks(group):
            changed += change_state(
                session,
                [*where, Job.id.in_(ids)],
                JobState.RUNNING,
                JobState.QUEUED,
                event="job.requeued",
                data={"reason": "crashed"},
                outcome="crashed",
                reason=reason,
                crashes=Job.crashes + more,
            )
    return changed


def _workers_die_without(session: Session, job_id: str) -> bool:
    """Whether a worker of the farm that did not hold this job died recently."""
    its_own = select(Attempt.owner).where(Attempt.job_id == job_id, (Attempt.outcome == "crashed") | Attempt.ended_at.is_(None))
    others = select(Attempt.owner).where(
        Attempt.outcome == "crashed", Attempt.ended_at > db_now() - DEATHS_LATELY_S, Attempt.owner.not_in(its_own)
    )
    return session.scalar(others.limit(1)) is not None
