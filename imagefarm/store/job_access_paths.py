"""Which jobs a list shows, and the access paths that lead to them: indexes, each read in order of the jobs' ids.

A path is one range of one index, written as a comparison of rows: `(tenant_id, state, id) < ('t', 'failed', 'job_9')`, ordered
by the same columns. Written as equalities, PostgreSQL knows that the first columns are constant and may read the primary key
instead, dropping what does not match: as quick where matches are many and near, and a walk through the whole table where all
of them are old. This form leaves one index that gives the order, whatever the statistics say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, case, literal, literal_column, select, tuple_, union
from sqlalchemy.orm import Session

from imagefarm.states import JobState
from imagefarm.store.engine import likely
from imagefarm.store.models import Attempt, Job, Tenant, Worker

Column = Any
"""A mapped column: typed, mypy takes a dataclass's field of it for a descriptor."""
LOWEST, HIGHEST = "job", "k"
"""Under and above every job's id."""
MAX_ACCESS_PATHS = 16
"""Access paths of tenants or of a worker's incarnations that are followed beside each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs a list shows. None and empty mean any. Times are seconds since 1970."""

    tenant_id: str | None = None
    states: tuple[JobState, ...] = ()
    model: str | None = None
    batch_id: str | None = None
    single: bool = False
    """Those of no batch."""
    custom_id: str | None = None
    worker: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    text: str | None = None
    created_after: float | None = None
    created_before: float | None = None


class IdRange(NamedTuple):
    """From the id `low` to under the id `high`."""

    low: str = LOWEST
    high: str = HIGHEST


@dataclass(frozen=True, slots=True)
class AccessPath:
    """The jobs whose `columns` have these `values`, by an index on the columns and the id."""

    columns: tuple[Column, ...] = ()
    values: tuple[str, ...] = ()
    id: Column = Job.id
    single: bool = False
    """An index of the jobs of no batch alone."""

    @property
    def meets(self) -> frozenset[str]:
        """Names of the columns that need no condition of their own."""
        return frozenset(column.key for column in self.columns) | ({"single"} if self.single else set())

    @property
    def of_jobs(self) -> bool:
        """True if it leads to jobs themselves, each once; else to attempts, of which a job may have several."""
        return self.id is Job.id

    @property
    def order(self) -> list[ColumnElement[str]]:
        """Newest first, spelt so that only this path's index gives it."""
        return [column.desc() for column in (*self.columns, self.id)]

    @property
    def oldest_first(self) -> list[ColumnElement[str]]:
        """The same, oldest first."""
        return [column.asc() for column in (*self.columns, self.id)]

    def in_range(self, ids: IdRange) -> list[ColumnElement[bool]]:
        """Those of the path with such an id."""
        row = tuple_(*self.columns, self.id)
        first, last = (tuple_(*(literal(value) for value in (*self.values, end))) for end in ids)
        if not self.columns:
            return [self.id >= ids.low, self.id < ids.high]
        # nullable columns may have an index of their rows that are not null alone
        known = [column.is_not(None) for column in self.columns if column.key == "custom_id"]
        if self.single:
            known.append(likely(Job.batch_id.is_(None)))
        return [row >= first, row < last, *known]


def access_paths(session: Session, wanted: JobFilter) -> list[AccessPath]:
    """The paths on which all jobs that the filter wants are found, with others perhaps; none if there can be no such job.

    All of them meet the same conditions of the filter.
    """
    if wanted.custom_id is not None:
        return [AccessPath((Job.custom_id,), (wanted.custom_id,))]
    if wanted.batch_id is not None:
        return _by_state(wanted, Job.batch_id, wanted.batch_id)
    if wanted.worker is not None:
        named = select(Worker.id).where(Worker.name == wanted.worker).limit(MAX_ACCESS_PATHS + 1)
        owners = session.scalars(named).all()
        if len(owners) <= MAX_ACCESS_PATHS:
            return [AccessPath((Attempt.owner,), (owner,), Attempt.job_id) for owner in owners]
    if wanted.tenant_id is not None:
        if wanted.model is not None and not wanted.states:
            return [AccessPath((Job.tenant_id, Job.model), (wanted.tenant_id, wanted.model))]
        if wanted.single and not wanted.states:
            return [AccessPath((Job.tenant_id,), (wanted.tenant_id,), single=True)]
        return _by_state(wanted, Job.tenant_id, wanted.tenant_id)
    if wanted.states:
        return [AccessPath((Job.state,), (state,)) for state in wanted.states]
    if wanted.model is not None:
        tenants = session.scalars(select(Tenant.id).limit(MAX_ACCESS_PATHS + 1)).all()
        if 0 < len(tenants) <= MAX_ACCESS_PATHS:
            return [AccessPath((Job.tenant_id, Job.model), (tenant, wanted.model)) for tenant in tenants]
    return [AccessPath()]


def _by_state(wanted: JobFilter, column: Column, value: str) -> list[AccessPath]:
    """All of a tenant's or batch's jobs, or those in each of the states."""
    if wanted.states:
        return [AccessPath((column, Job.state), (value, state)) for state in wanted.states]
    return [AccessPath((column,), (value,))]


def hidden(conditions: Sequence[ColumnElement[bool]]) -> list[ColumnElement[bool]]:
    """The conditions as one that no index serves: a planner that finds one for a part of them may leave the path."""
    if not conditions:
        return []
    return [case((and_(*conditions), literal_column("1")), else_=literal_column("0")) == literal_column("1")]


def newest_ids(
    paths: Sequence[AccessPath], id_range: IdRange, limit: int, rest: Sequence[ColumnElement[bool]] = ()
) -> Select[str]:
    """The newest ids on all paths together, of jobs that match the rest (of paths to jobs alone)."""
    parts = []
    for path in paths:
        part = select(path.id.label("id")).where(*path.in_range(id_range), *hidden(rest)).order_by(*path.order).limit(limit)
        if not path.of_jobs:
            part = part.group_by(*path.columns, path.id)
        parts.append(select(part.subquery().c.id))
    ids = (parts[0] if len(parts) == 1 else union(*parts)).subquery()
    return select(ids.c.id).order_by(ids.c.id.desc()).limit(limit)


def end_of_scan(path: AccessPath, id_range: IdRange, size: int) -> ScalarSelect[str]:
    """The id of the last of the next `size` on this path; null if there are not as many."""
    return select(path.id).where(*path.in_range(id_range)).order_by(*path.order).offset(size - 1).limit(1).scalar_subquery()
