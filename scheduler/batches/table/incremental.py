"""Incremental re-submission: compares a table with the batch of an earlier version of it, job by job.

Jobs of the two tables are matched by file name, which is the SKU and the variant unless the caller sets another pattern.
Unchanged jobs reuse existing images; all others are rendered.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from imagefarm.errors import Conflict, FieldError, InvalidRequest, NotFound
from imagefarm.ids import is_id
from imagefarm.states import OPEN, BatchState
from imagefarm.store import Store
from imagefarm.store.models import Batch, Job
from scheduler.batches.table.options import BatchOptions
from scheduler.batches.table.seeds import SeedPolicy

PAGE = 2000
"""Jobs read per query."""
OWN = frozenset({"name", "update_of", "reuse", "canary", "dry_run", "on_error", "expires_in", "deliver"})
"""Options that an update does not inherit from the batch that it updates."""


class Change(StrEnum):
    """How a job changed since the earlier table."""

    SAME = "same"
    """Planned with the same recipe. Whether its images exist is known when it is stored."""
    REUSED = "reused"
    """Unchanged, or rendered before with the same recipe: its images are reused."""
    UNFINISHED = "unfinished"
    """Unchanged, but its images were never finished."""
    CHANGED = "changed"
    NEW = "new"
    REMOVED = "removed"
    """In the earlier table only."""


class PreviousBatch:
    """The jobs of the earlier batch as digests of names and recipes: about 20 MB for 100,000 jobs."""

    def __init__(self, store: Store, batch_id: str) -> None:
        self.batch_id = batch_id
        self._jobs: dict[int, tuple[int, int]] = {}
        self._asked: set[int] = set()
        for name, recipe_hash, count in _jobs(store, batch_id, Job.recipe_hash, Job.count):
            self._jobs[_key(name)] = (_key(recipe_hash), count)

    def change(self, name: str | None, recipe_hash: str, count: int) -> Change:
        """How the job of this name changed. Each name is requested once."""
        if name is None or (found := self._jobs.get(key := _key(name))) is None:
            return Change.NEW
        self._asked.add(key)
        known, pictures = found
        return Change.SAME if known == _key(recipe_hash) and count <= pictures else Change.CHANGED

    @property
    def removed(self) -> int:
        """Number of jobs of the earlier batch that the new table does not contain."""
        return len(self._jobs) - len(self._asked)


def removed_names(store: Store, batch_id: str, previous_id: str) -> Iterator[str]:
    """The names in the earlier batch that the later batch does not have."""
    now = {_key(name) for (name,) in _jobs(store, batch_id)}
    for (name,) in _jobs(store, previous_id):
        if _key(name) not in now:
            yield name


def earlier_batch(session: Session, tenant_id: str, named: str) -> Batch:
    """The tenant's batch with this id, or its latest with this name. Raises NotFound; Conflict if the batch has open jobs."""
    where = [Batch.tenant_id == tenant_id, Batch.id == named if is_id(named, "batch") else Batch.name == named]
    if not is_id(named, "batch"):
        where.append(Batch.state.not_in([BatchState.VALIDATING, BatchState.CANCELLED]))
    batch = session.scalars(select(Batch).where(*where).order_by(Batch.id.desc()).limit(1)).first()
    if batch is None:
        raise NotFound(f"update_of: you have no batch of the id or name {named[:100]!r}; leave it out the first time")
    still_open = select(Job.id).where(Job.batch_id == batch.id, Job.state.in_(list(OPEN))).limit(1)
    if batch.state == BatchState.VALIDATING or session.scalar(still_open) is not None:
        raise Conflict(f"batch {batch.id} has open jobs; wait until it is done, or cancel them, then send the update again")
    return batch


def inherit(options: BatchOptions, batch: Batch) -> BatchOptions:
    """The options of an update: those that the caller set, and the others from the earlier batch."""
    kept = {name: value for name, value in batch.options.items() if name in BatchOptions.model_fields and name not in OWN}
    given = {name: getattr(options, name) for name in options.model_fields_set}
    merged = BatchOptions.model_validate(kept | {"name": batch.name, "template": batch.template} | given)
    if "defaults" in given:
        merged.defaults = kept.get("defaults", {}) | options.defaults
    merged.column_map = kept.get("column_map", {}) | options.column_map
    if merged.seeds is SeedPolicy.RANDOM:
        remedy = "choose sku, row or fixed"
        raise InvalidRequest([FieldError(field="seeds", detail="random renders every picture again", remedy=remedy)])
    merged.update_of, merged.reuse = batch.id, True
    return merged


def row_change(changes: Collection[Change]) -> str | None:
    """The changes of a row's jobs as text; None if there are none."""
    return ", ".join(sorted(set(changes))) or None


def counted(changes: Counter[Change], removed: int) -> dict[str, int]:
    """Number of jobs by change, as stored with the batch."""
    shown = (Change.REUSED, Change.CHANGED, Change.NEW, Change.UNFINISHED)
    return {str(change): changes[change] for change in shown} | {str(Change.REMOVED): removed}


def _jobs(store: Store, batch_id: str, *columns: Any) -> Iterator[Any]:
    after = ""
    while True:
        with store.read() as session:
            # planned jobs only: a re-roll is a decision about an image, not a row
            where = (Job.batch_id == batch_id, Job.id > after, Job.from_image.is_(None))
            found = session.execute(select(Job.id, Job.name, *columns).where(*where).order_by(Job.id).limit(PAGE)).all()
        if not found:
            return
        after = found[-1].id
        yield from (row[1:] for row in found if row.name is not None)


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.casefold().encode(), digest_size=8).digest(), "big")
