"""Job filters and the access paths that serve them: index ranges, each read in the order of the job ids.

A path is one range of one index, written as a row comparison: `(tenant_id, state, id) < ('t', 'failed', 'job_9')`, ordered by
the same columns. If the conditions were equalities, PostgreSQL would know that the first columns are constant, and could read
the primary key and drop the rows that do not match. That is fast where many matches are near, but it scans the whole table where
all matches are old. With the row comparison only one index gives the order, whatever the statistics say.
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
"""A mapped column. Without this alias mypy takes a dataclass field of this type for a descriptor."""
LOWEST, HIGHEST = "job", "k"
"""Below and above every job id."""
MAX_ACCESS_PATHS = 16
"""Largest number of access paths (tenants, or incarnations of a worker) that are merged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """The jobs that a list shows. None and empty match any job. Times are seconds since 1970."""

    tenant_id: str | None = None
    states: tuple[JobState, ...] = ()
    model: str | None = None
    batch_id: str | None = None
    single: bool = False
    """Jobs without a batch."""
    custom_id: str | None = None
    worker: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    text: str | None = None
    created_after: float | None = None
    created_before: float | None = None


class IdRange(NamedTuple):
    """Ids from `low` up to but excluding `high`."""

    low: str = LOWEST
    high: str = HIGHEST


@dataclass(frozen=True, slots=True)
class AccessPath:
    """The jobs whose `columns` have these `values`, by an index on the columns and the id."""

    columns: tuple[Column, ...] = ()
    values: tuple[str, ...] = ()
    id: Column = Job.id
    single: bool = False
    """A partial index of the jobs without a batch."""

    @property
    def meets(self) -> frozenset[str]:
        """Names of the columns that need no further condition."""
        return frozenset(column.key for column in self.columns) | ({"single"} if self.single else set())

    @property
    def of_jobs(self) -> bool:
        """True if the path leads to jobs, each once; False if it leads to attempts, of which a job may have several."""
        return self.id is Job.id

    @property
    def order(self) -> list[ColumnElement[str]]:
        """Newest first, written so that only this path's index gives the order."""
        return [column.desc() for column in (*self.columns, self.id)]

    @property
    def oldest_first(self) -> list[ColumnElement[str]]:
        """Oldest first, written so that only this path's index gives the order."""
        return [column.asc() for column in (*self.columns, self.id)]

    def in_range(self, ids: IdRange) -> list[ColumnElement[bool]]:
        """The rows of the path with an id in the range."""
        row = tuple_(*self.columns, self.id)
        first, last = (tuple_(*(literal(value) for value in (*self.values, end))) for end in ids)
        if not self.columns:
            return [self.id >= ids.low, self.id < ids.high]
        # nullable columns may have a partial index of their non-null rows
        known = [column.is_not(None) for column in self.columns if column.key == "custom_id"]
        if self.single:
            known.append(likely(Job.batch_id.is_(None)))
        return [row >= first, row < last, *known]


def access_paths(session: Session, wanted: JobFilter) -> list[AccessPath]:
    """The paths that together contain all jobs of the filter, perhaps with others; empty if no job can match.

    All paths satisfy the same conditions of the filter.
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
    """All jobs of a tenant or batch, or the jobs in each of the states."""
    if wanted.states:
        return [AccessPath((column, Job.state), (value, state)) for state in wanted.states]
    return [AccessPath((column,), (value,))]


def hidden(conditions: Sequence[ColumnElement[bool]]) -> list[ColumnElement[bool]]:
    """The conditions as one expression that no index serves. A planner that found an index for a part could leave the path."""
    if not conditions:
        return []
    return [case((and_(*conditions), literal_column("1")), else_=literal_column("0")) == literal_column("1")]


def newest_ids(
    paths: Sequence[AccessPath], id_range: IdRange, limit: int, rest: Sequence[ColumnElement[bool]] = ()
) -> Select[str]:
    """The newest ids over all paths, of jobs that match the other conditions. Only for paths to jobs."""
    parts = []
    for path in paths:
        part = select(path.id.label("id")).where(*path.in_range(id_range), *hidden(rest)).order_by(*path.order).limit(limit)
        if not path.of_jobs:
            part = part.group_by(*path.columns, path.id)
        parts.append(select(part.subquery().c.id))
    ids = (parts[0] if len(parts) == 1 else union(*parts)).subquery()
    return select(ids.c.id).order_by(ids.c.id.desc()).limit(limit)


def end_of_scan(path: AccessPath, id_range: IdRange, size: int) -> ScalarSelect[str]:
    """The id of the last of the next `size` rows on this path; null if there are fewer rows."""
    return select(path.id).where(*path.in_range(id_range)).order_by(*path.order).offset(size - 1).limit(1).scalar_subquery()
