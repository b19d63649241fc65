"""Reads of jobs: a job, its images, and lists with keyset pagination.

A list is ordered newest first along the indexes that serve the filter (`job_access_paths`). Conditions without an index (a label,
a word of the prompt, a model together with a state) are checked on the next jobs of that index, for at most `SCAN_S` seconds. A
page therefore takes the same short time at any depth and for any filter. It may hold fewer jobs than requested, or none; its
cursor says where to continue.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import ColumnElement, exists, func, select, text
from sqlalchemy.orm import Session

from imagefarm.errors import NotFound
from imagefarm.ids import first_id_at
from imagefarm.states import JobState
from imagefarm.store.job_access_paths import (
    HIGHEST,
    LOWEST,
    AccessPath,
    IdRange,
    JobFilter,
    access_paths,
    end_of_scan,
    hidden,
    newest_ids,
)
from imagefarm.store.models import Attempt, ChannelFile, Image, Job, Worker

SCAN_S = 0.01
"""Seconds for which one page checks conditions without an index. The scan that exceeds this time is the last one."""
FIRST_SCAN, MAX_SCAN = 500, 4_000
"""Number of jobs in the first scan. While scans are fast, each has twice as many jobs as the one before."""
PLAN_EACH = text("SET LOCAL plan_cache_mode = force_custom_plan")
"""PostgreSQL makes a generic plan for a repeated statement. The planner does not know how far apart two ids are, so the generic
plan reads all jobs of a path: 1,900 ms instead of 1 ms at a million jobs.
"""
CLOCK_SLACK_S = 3600.0
"""Largest difference in seconds between the process clock in an id and the database clock in `created_at`."""


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of a list, newest first. The next page starts below the id `next_before`; None at the end."""

    jobs: list[Job] = field(default_factory=list)
    next_before: str | None = None


def visible_job(session: Session, job_id: str, tenant_id: str | None) -> Job:
    """The job, if it belongs to this tenant (None: any tenant). Raises NotFound."""
    job = session.get(Job, job_id)
    if job is None or tenant_id not in {None, job.tenant_id}:
        raise NotFound(f"no job {job_id[:60]!r}")
    return job


def jobs_of_batch(session: Session, batch_id: str, *, after: str, limit: int) -> Sequence[Job]:
    """The jobs of a batch in the order of its table, from the id after `after` on."""
    return session.scalars(select(Job).where(Job.batch_id == batch_id, Job.id > after).order_by(Job.id).limit(limit)).all()


def rendered_images(session: Session, job_id: str) -> Sequence[Image]:
    """The images that this job rendered itself, in order of their index."""
    return session.scalars(select(Image).where(Image.job_id == job_id).order_by(Image.index)).all()


def images_of(session: Session, job_ids: Sequence[str]) -> dict[str, list[Image]]:
    """The images of these jobs, ordered by index. A job that reuses images has those of the other job."""
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
    """The channel files of these images, by image id; images without channel files are absent."""
    found: dict[str, list[ChannelFile]] = {}
    if ids := list(image_ids):
        where = ChannelFile.image_id.in_(ids)
        for file in session.scalars(select(ChannelFile).where(where).order_by(ChannelFile.image_id, ChannelFile.channel)):
            found.setdefault(file.image_id, []).append(file)
    return found


def list_jobs(session: Session, wanted: JobFilter, *, before: str | None, limit: int) -> JobPage:
    """The newest matching jobs with an id below `before`."""
    _plan_each(session)
    paths = access_paths(session, wanted)
    if not paths:
        return JobPage()
    rest = _rest(wanted, paths[0].meets)
    id_range = _id_range(wanted, before)
    if not rest:
        return _page(_take(session, paths, rest, id_range, limit + 1), limit, None)
    found: list[Job] = []
    size, began = FIRST_SCAN, time.perf_counter()
    while True:
        scan_began = time.perf_counter()
        end = _end_of_scan(session, paths, id_range, size)
        found += _take(session, paths, rest, id_range._replace(low=end or id_range.low), limit + 1 - len(found))
        now = time.perf_counter()
        if len(found) > limit or end is None or now - began >= SCAN_S:
            return _page(found, limit, end)
        id_range = id_range._replace(high=end)
        if now - scan_began < SCAN_S / 8:
            size = min(2 * size, MAX_SCAN)


def count_newer(session: Session, wanted: JobFilter, than: str, most: int) -> int:
    """The number of matching jobs that are newer than the job `than`, at most `most`.

    If no index serves the filter, only the newest `MAX_SCAN` jobs are checked, so the number may be too small.
    """
    _plan_each(session)
    paths = access_paths(session, wanted)
    if not paths:
        return 0
    low, high = _id_range(wanted, None)
    id_range = IdRange(max(low, than + "~"), high)  # an id followed by any character sorts after the id itself
    rest = _rest(wanted, paths[0].meets)
    if rest and (end := _end_of_scan(session, paths, id_range, MAX_SCAN)):
        id_range = id_range._replace(low=end)
    return len(_take(session, paths, rest, id_range, most))


def matching_ids(session: Session, wanted: JobFilter, states: Sequence[JobState], *, after: str, limit: int) -> list[str]:
    """Ids of the matching jobs in one of `states`, oldest first, after the id `after`.

    A page of a list limits its checks to `SCAN_S` seconds; this function checks as many jobs as necessary.
    """
    where = _rest(replace(wanted, states=tuple(states)), frozenset())
    statement = select(Job.id).where(*where, Job.id > after).order_by(Job.id).limit(limit)
    return list(session.scalars(statement))


def _plan_each(session: Session) -> None:
    if session.connection().dialect.name == "postgresql":
        session.execute(PLAN_EACH)


def _page(found: list[Job], limit: int, end: str | None) -> JobPage:
    return JobPage(found[:limit], found[limit - 1].id) if len(found) > limit else JobPage(found, end)


def _take(
    session: Session, paths: Sequence[AccessPath], rest: Sequence[ColumnElement[bool]], id_range: IdRange, limit: int
) -> list[Job]:
    """The newest `limit` jobs of the paths that match the other conditions."""
    if len(paths) == 1 and paths[0].of_jobs:
        where = [*paths[0].in_range(id_range), *hidden(rest)]
        return list(session.scalars(select(Job).where(*where).order_by(*paths[0].order).limit(limit)))
    if paths[0].of_jobs:
        ids, rest = session.scalars(newest_ids(paths, id_range, limit, rest)).all(), ()
    else:
        ids = session.scalars(newest_ids(paths, id_range, MAX_SCAN if rest else limit)).all()
    # ids instead of a subquery: a planner that joins might read all jobs in the order of their ids
    named = select(Job).where(Job.id.in_(ids), *hidden(rest)).order_by(Job.id.desc()).limit(limit)
    return list(session.scalars(named)) if ids else []


def _end_of_scan(session: Session, paths: Sequence[AccessPath], id_range: IdRange, size: int) -> str | None:
    """The id where a scan of `size` jobs ends, divided equally among the paths; None if fewer are left."""
    ends = session.execute(select(*(end_of_scan(path, id_range, max(size // len(paths), 1)) for path in paths))).one()
    return max((end for end in ends if end is not None), default=None)


def _id_range(wanted: JobFilter, before: str | None) -> IdRange:
    """The id range that the filter's times and the cursor allow."""
    low, high = LOWEST, before or HIGHEST
    if wanted.created_after is not None:
        low = first_id_at("job", wanted.created_after - CLOCK_SLACK_S)
    if wanted.created_before is not None:
        high = min(high, first_id_at("job", wanted.created_before + CLOCK_SLACK_S))
    return IdRange(low, high)


def _rest(wanted: JobFilter, met: frozenset[str]) -> list[ColumnElement[bool]]:
    """The filter's conditions, except those on `met` columns."""
    rest: list[ColumnElement[bool]] = []
    for column in (Job.tenant_id, Job.batch_id, Job.custom_id, Job.model):
        value = getattr(wanted, column.key)
        if value is not None and column.key not in met:
            rest.append(column == value)
    if wanted.single and "single" not in met:
        rest.append(Job.batch_id.is_(None))
    if wanted.states and "state" not in met:
        rest.append(Job.state.in_(wanted.states))
    if wanted.worker is not None and "owner" not in met:
        named = select(Worker.id).where(Worker.name == wanted.worker)
        rest.append(exists().where(Attempt.job_id == Job.id, Attempt.owner.in_(named)))
    if wanted.created_after is not None:
        rest.append(Job.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        rest.append(Job.created_at < wanted.created_before)
    for name, label in wanted.labels:
        rest.append(Job.labels[name].as_string() == label)
    if wanted.text is not None:
        rest.append(Job.prompt.icontains(wanted.text, autoescape=True))
    return rest
