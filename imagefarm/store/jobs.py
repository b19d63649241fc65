"""Reads of jobs: one, with its images, and lists by keyset at any depth.

A list runs newest first along an index that the filter names (custom id, or batch, or tenant; with state or model). What no
index serves (a label, a worker, words of the prompt) is looked for among the next `SCAN` jobs of that index only, so a page
takes the same short time wherever it begins; it may then hold fewer jobs than asked for, and its cursor says where to go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import ColumnElement, Select, Subquery, exists, func, select, union_all
from sqlalchemy.orm import Session

from imagefarm.ids import first_id_at
from imagefarm.states import JobState
from imagefarm.store.models import Attempt, ChannelFile, Image, Job, Worker

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


def channel_files_of(session: Session, image_ids: Iterable[str]) -> dict[str, list[ChannelFile]]:
    """The channels' files of these images, by image; an image without any is not there."""
    found: dict[str, list[ChannelFile]] = {}
    if ids := list(image_ids):
        where = ChannelFile.image_id.in_(ids)
        for file in session.scalars(select(ChannelFile).where(where).order_by(ChannelFile.image_id, ChannelFile.channel)):
            found.setdefault(file.image_id, []).append(file)
    return found


def list_jobs(session: Session, wanted: JobFilter, *, before: str | None, limit: int) -> JobPage:
    """The newest jobs that match and whose id is less than `before`."""
    rest = _residual(wanted)
    last = session.scalar(_last_looked_at(wanted, before)) if rest else None
    jobs = list(session.scalars(list_statement(wanted, before, limit + 1, down_to=last)))
    if len(jobs) > limit:
        return JobPage(jobs[:limit], jobs[limit - 1].id)
    return JobPage(jobs, last)


def matching_ids(session: Session, wanted: JobFilter, states: Sequence[JobState], *, after: str, limit: int) -> list[str]:
    """Ids of the jobs that match and are in one of `states`, oldest first, from `after` on. Unlike a list's page this looks
    at as many jobs as it must.
    """
    where = _residual(replace(wanted, states=()))
    for column, value in ((Job.tenant_id, wanted.tenant_id), (Job.batch_id, wanted.batch_id), (Job.custom_id, wanted.custom_id)):
        if value is not None:
            where.append(column == value)
    if wanted.model is not None:
        where.append(Job.model == wanted.model)
    statement = select(Job.id).where(*where, Job.state.in_(states), Job.id > after).order_by(Job.id).limit(limit)
    return list(session.scalars(statement))


def list_statement(wanted: JobFilter, before: str | None, limit: int, *, down_to: str | None = None) -> Select[Job]:
    """The query for a page: the newest `limit` jobs that match, under `before` and not under `down_to`."""
    conditions = [] if down_to is None else [Job.id >= down_to]
    conditions += _residual(wanted)
    ranges = _ranges(wanted, before)
    if len(ranges) == 1:
        return select(Job).where(*ranges[0], *conditions).order_by(Job.id.desc()).limit(limit)
    ids = _merged([[*where, *conditions] for where in ranges], limit)
    return select(Job).where(Job.id.in_(select(ids.c.id))).order_by(Job.id.desc()).limit(limit)


def _last_looked_at(wanted: JobFilter, before: str | None) -> Select[str]:
    """The last of the next SCAN jobs of the range; nothing if it ends sooner."""
    ids = _merged(_ranges(wanted, before), SCAN)
    return select(ids.c.id).order_by(ids.c.id.desc()).offset(SCAN - 1).limit(1)


def _merged(ranges: Sequence[Sequence[ColumnElement[bool]]], limit: int) -> Subquery:
    """The newest ids of each range, `limit` of each at most: each is read along its own index, in order."""
    parts = [select(Job.id).where(*where).order_by(Job.id.desc()).limit(limit).subquery() for where in ranges]
    return parts[0] if len(parts) == 1 else union_all(*(select(part.c.id) for part in parts)).subquery()


def _ranges(wanted: JobFilter, before: str | None) -> list[list[ColumnElement[bool]]]:
    """Where an index leads to the jobs in order of their ids: one range, or one for each state."""
    where: list[ColumnElement[bool]] = []
    if before is not None:
        where.append(Job.id < before)
    if wanted.created_after is not None:
        where.append(Job.id >= first_id_at("job", wanted.created_after - CLOCK_SLACK_S))
    if wanted.created_before is not None:
        where.append(Job.id < first_id_at("job", wanted.created_before + CLOCK_SLACK_S))
    if wanted.custom_id is not None:
        return [[*where, Job.custom_id == wanted.custom_id]]
    if wanted.batch_id is not None:
        where.append(Job.batch_id == wanted.batch_id)
    elif wanted.tenant_id is not None:
        where.append(Job.tenant_id == wanted.tenant_id)
        if not wanted.states and wanted.model is not None:
            where.append(Job.model == wanted.model)
    return [[*where, Job.state == state] for state in wanted.states] or [where]


def _residual(wanted: JobFilter) -> list[ColumnElement[bool]]:
    """The conditions that the index of `_ranges` does not serve."""
    rest: list[ColumnElement[bool]] = []
    by_custom_id, by_batch = wanted.custom_id is not None, wanted.batch_id is not None
    if wanted.tenant_id is not None and (by_custom_id or by_batch):
        # coalesce hides the column from its indexes: a planner that takes one of them walks through all of the tenant's jobs
        rest.append(func.coalesce(Job.tenant_id, "") == wanted.tenant_id)
    if by_custom_id and wanted.batch_id is not None:
        rest.append(Job.batch_id == wanted.batch_id)
    if by_custom_id and wanted.states:
        rest.append(Job.state.in_(wanted.states))
    if wanted.model is not None and (wanted.tenant_id is None or by_custom_id or by_batch or wanted.states):
        rest.append(Job.model == wanted.model)
    if wanted.created_after is not None:
        rest.append(Job.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        rest.append(Job.created_at < wanted.created_before)
    for name, value in wanted.labels:
        rest.append(Job.labels[name].as_string() == value)
    if wanted.worker is not None:
        named = select(Worker.id).where(Worker.name == wanted.worker)
        rest.append(exists().where(Attempt.job_id == Job.id, Attempt.owner.in_(named)))
    if wanted.text is not None:
        rest.append(Job.prompt.icontains(wanted.text, autoescape=True))
    return rest
