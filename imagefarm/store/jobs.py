"""Reads of jobs: one, with its images, and lists by keyset at any depth.

A list runs newest first along an index that the filter names (tenant, state, model, batch, custom id). What no index serves
(a label, a worker, words of the prompt) is looked for among the next `SCAN` jobs of that index only, so a page takes the same
short time wherever it begins; it may then hold fewer jobs than asked for, and its cursor says where to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import ColumnElement, Select, exists, func, select, union_all
from sqlalchemy.orm import Session, aliased

from imagefarm.ids import first_id_at
from imagefarm.states import JobState
from imagefarm.store.models import Attempt, Image, Job, Worker

SCAN = 5_000
"""Jobs looked at for one page when a filter has no index."""
CLOCK_SLACK_S = 3600.0
"""Ids carry the time of the process that made them, `created_at` that of the database: never further apart than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs a list shows. None and empty mean any. Times are seconds since 1970."""

    tenant_id: str | None = None
    states: tuple[JobState, ...] = ()
    model: str | None = None
    batch_id: str | None = None
    custom_id: str | None = None
    worker: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    text: str | None = None
    created_after: float | None = None
    created_before: float | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of a list, newest first. `next_before` is the id that the next page begins under; None at the end."""

    jobs: list[Job] = field(default_factory=list)
    next_before: str | None = None


def get_job(session: Session, job_id: str, tenant_id: str | None) -> Job | None:
    """The job, if there is one and it is this tenant's (None: anybody's)."""
    job = session.get(Job, job_id)
    return job if job is not None and tenant_id in {None, job.tenant_id} else None


def images_of(session: Session, job_ids: Sequence[str]) -> dict[str, list[Image]]:
    """The images of these jobs, in order of their index; a job that reuses another's pictures has those."""
    found: dict[str, list[Image]] = {job_id: [] for job_id in job_ids}
    if job_ids:
        pictures = (
            select(Job.id, Image)
            .join(Image, Image.job_id == func.coalesce(Job.reuses, Job.id))
            .where(Job.id.in_(job_ids), Image.index < Job.count)
            .order_by(Job.id, Image.index)
        )
        for job_id, image in session.execute(pictures):
            found[job_id].append(image)
    return found


def list_jobs(session: Session, wanted: JobFilter, *, before: str | None, limit: int) -> JobPage:
    """The newest jobs that match and whose id is less than `before`."""
    rest = _residual(wanted)
    if not rest:
        jobs = list(session.scalars(_newest(wanted, before, limit + 1)))
        return JobPage(jobs[:limit], jobs[limit - 1].id if len(jobs) > limit else None)
    window = _newest(wanted, before, SCAN).subquery()
    seen = aliased(Job, window)
    matching = select(seen).where(*(condition(seen) for condition in rest)).order_by(seen.id.desc()).limit(limit + 1)
    jobs = list(session.scalars(matching))
    if len(jobs) > limit:
        return JobPage(jobs[:limit], jobs[limit - 1].id)
    return JobPage(jobs, session.scalar(select(window.c.id).order_by(window.c.id.desc()).offset(SCAN - 1).limit(1)))


def matching_ids(session: Session, wanted: JobFilter, states: Sequence[JobState], *, after: str, limit: int) -> list[str]:
    """Ids of the jobs that match and are in one of `states`, oldest first, from `after` on. Unlike a list's page this looks
    at as many jobs as it must.
    """
    where = [condition(Job) for condition in _residual(replace(wanted, states=()))]
    for column, value in ((Job.tenant_id, wanted.tenant_id), (Job.batch_id, wanted.batch_id), (Job.custom_id, wanted.custom_id)):
        if value is not None:
            where.append(column == value)
    if wanted.model is not None:
        where.append(Job.model == wanted.model)
    statement = select(Job.id).where(*where, Job.state.in_(states), Job.id > after).order_by(Job.id).limit(limit)
    return list(session.scalars(statement))


Condition = Callable[[type[Job]], ColumnElement[bool]]


def _newest(wanted: JobFilter, before: str | None, limit: int) -> Select[Job]:
    """The newest jobs along the best index: everything here is a range of one, or of one for each state."""
    where: list[ColumnElement[bool]] = []
    if before is not None:
        where.append(Job.id < before)
    if wanted.created_after is not None:
        where.append(Job.id >= first_id_at("job", wanted.created_after - CLOCK_SLACK_S))
    if wanted.created_before is not None:
        where.append(Job.id < first_id_at("job", wanted.created_before + CLOCK_SLACK_S))
    if wanted.batch_id is not None:
        where.append(Job.batch_id == wanted.batch_id)
    elif wanted.tenant_id is not None:
        where.append(Job.tenant_id == wanted.tenant_id)
        if wanted.custom_id is not None:
            where.append(Job.custom_id == wanted.custom_id)
        elif not wanted.states and wanted.model is not None:
            where.append(Job.model == wanted.model)
    by_state = wanted.states and (wanted.batch_id is not None or wanted.custom_id is None or wanted.tenant_id is None)
    if not by_state:
        return select(Job).where(*where).order_by(Job.id.desc()).limit(limit)
    # an index on (.., state, id) is in order of id within one state only: take the newest of each and merge
    parts = [
        select(select(Job.id).where(*where, Job.state == state).order_by(Job.id.desc()).limit(limit).subquery().c.id)
        for state in wanted.states
    ]
    ids = union_all(*parts).subquery()
    return select(Job).where(Job.id.in_(select(ids.c.id))).order_by(Job.id.desc()).limit(limit)


def _residual(wanted: JobFilter) -> list[Condition]:
    """The conditions that the index of `_newest` does not serve."""
    rest: list[Condition] = []
    if wanted.batch_id is not None and wanted.tenant_id is not None:
        rest.append(lambda job: job.tenant_id == wanted.tenant_id)
    if wanted.custom_id is not None and (wanted.batch_id is not None or wanted.tenant_id is None):
        rest.append(lambda job: job.custom_id == wanted.custom_id)
    if wanted.states and wanted.batch_id is None and wanted.custom_id is not None and wanted.tenant_id is not None:
        rest.append(lambda job: job.state.in_(wanted.states))
    indexed_model = wanted.tenant_id is not None and wanted.batch_id is None and wanted.custom_id is None and not wanted.states
    if wanted.model is not None and not indexed_model:
        rest.append(lambda job: job.model == wanted.model)
    if wanted.created_after is not None:
        rest.append(lambda job: job.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        rest.append(lambda job: job.created_at < wanted.created_before)
    for name, value in wanted.labels:
        rest.append(lambda job, name=name, value=value: job.labels[name].as_string() == value)  # type: ignore[misc]
    if wanted.worker is not None:
        named = select(Worker.id).where(Worker.name == wanted.worker)
        rest.append(lambda job: exists().where(Attempt.job_id == job.id, Attempt.owner.in_(named)))
    if wanted.text is not None:
        rest.append(lambda job: job.prompt.icontains(wanted.text, autoescape=True))
    return rest
