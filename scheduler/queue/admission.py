"""Admission: a validated request becomes committed jobs, or a refusal that says when to come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from imagefarm.catalogue import Catalogue
from imagefarm.ids import new_id
from imagefarm.recipe import JobRequest, Recipe, recipe_hash
from imagefarm.settings import Settings
from imagefarm.states import JobState
from imagefarm.store import db_now
from imagefarm.store.audit import append, append_many
from imagefarm.store.bulk_insert import insert_many
from imagefarm.store.models import Job, Model
from scheduler.assets.store import record_use
from scheduler.queue.limits import CALLING_KEY, check_limits, record_usage
from scheduler.queue.transition import add_to_backlog

NOW = select(db_now())
LEARNT_COSTS = select(Model.name, Model.cost_s).where(Model.cost_s.is_not(None))
INSERT_JOB = insert(Job)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPosition:
    """Where a job belongs besides its request: its batch, row, file name, and whether it is held."""

    batch_id: str | None = None
    row: int | None = None
    name: str | None = None
    held: bool = False
    rank: int = 0


def learnt_costs(session: Session) -> dict[str, float]:
    """Learnt GPU-seconds of one default image, by model."""
    return dict(session.connection().execute(LEARNT_COSTS).all())  # type: ignore[arg-type]


def prepare(
    catalogue: Catalogue,
    request: JobRequest,
    tenant_id: str,
    *,
    costs: dict[str, float],
    position: BatchPosition | None = None,
) -> dict[str, Any]:
    """Make the row of a job from a request. Raises InvalidRequest or UnknownModel; touches no database."""
    recipe, warnings = catalogue.resolve(request)
    return row_of(catalogue, request, recipe, warnings, tenant_id, cost_s=costs.get(recipe.model), position=position)


def row_of(
    catalogue: Catalogue,
    request: JobRequest,
    recipe: Recipe,
    warnings: list[str],
    tenant_id: str,
    *,
    cost_s: float | None,
    position: BatchPosition | None = None,
) -> dict[str, Any]:
    """The row of a job whose recipe is known. `cost_s` are the learnt GPU-seconds of one default image of its model."""
    position = position or BatchPosition()
    entry = catalogue.get(recipe.model)
    stored = recipe.model_dump(mode="json")
    return {
        "id": new_id("job"),
        "tenant_id": tenant_id,
        "priority_class": str(request.priority),
        "rank": position.rank,
        "model": recipe.model,
        "compat_key": entry.compat_key(recipe),
        "state": str(JobState.HELD if position.held else JobState.QUEUED),
        "recipe": stored,
        "recipe_hash": recipe_hash(stored),
        "prompt": recipe.prompt,
        "count": request.count,
        "labels": dict(request.labels),
        "custom_id": request.custom_id,
        "batch_id": position.batch_id,
        "row": position.row,
        "name": position.name,
        "warnings": warnings,
        "cost_s": entry.predicted_cost_s(recipe, request.count, cost_s),
        "attempt": 0,
        "crashes": 0,
        "preview": request.preview,
        "not_before": 0.0,
        "expires_in": request.expires_in,
    }


def submit(session: Session, rows: Sequence[dict[str, Any]], settings: Settings) -> float:
    """Write prepared jobs with their counters and audit events, in the caller's transaction. A commit makes them durable.

    All rows are of one tenant. Returns the time of their making. Raises LimitExceeded or InvalidRequest if they do not fit the
    tenant's limits; then nothing is written.
    """
    if not rows:
        return 0.0
    tenant_id = rows[0]["tenant_id"]
    now = session.connection().scalar(NOW) or 0.0
    check_limits(session, rows, settings, now)
    calling_key = CALLING_KEY.get()
    if calling_key is not None:
        rows = [row | {"quota_id": calling_key.quota_id} for row in rows]
    if len(rows) == 1:
        session.connection().execute(INSERT_JOB, _stored(rows[0], now) | {"created_at": now})
    else:
        insert_many(session, Job, [_stored(row, now) for row in rows], created_at=now)
    record_use(session, rows)
    queued: dict[tuple[str, str, str], int] = {}
    for row in rows:
        if row["state"] == JobState.QUEUED:
            key = (row["model"], row["priority_class"], row["tenant_id"])
            queued[key] = queued.get(key, 0) + 1
    for key in sorted(queued):
        add_to_backlog(session, key, queued=queued[key])
    record_usage(session, tenant_id, now, sum(row["count"] for row in rows), sum(row["cost_s"] for row in rows))
    if len(rows) == 1:
        append(
            session, "job.submitted", rows[0]["id"], tenant_id, {"recipe_hash": rows[0]["recipe_hash"], "model": rows[0]["model"]}
        )
    else:
        events = [
            ("job.submitted", row["id"], tenant_id, {"recipe_hash": row["recipe_hash"], "model": row["model"]}) for row in rows
        ]
        append_many(session, events)
    return now


def _stored(row: dict[str, Any], now: float) -> dict[str, Any]:
    """A prepared row as the table has it."""
    stored = row.copy()
    expires_in = stored.pop("expires_in")
    stored["expires_at"] = None if expires_in is None else now + expires_in
    return stored
