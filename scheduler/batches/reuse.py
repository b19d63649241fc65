"""Pictures that exist already: a job whose recipe the tenant has rendered before takes those instead of rendering again.

With seeds that do not change from one submission to the next (a fixed one, or those derived from SKUs), sending a table
again renders only the rows that changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from imagefarm.imaging.channels import Channel
from imagefarm.states import JobState
from imagefarm.store import db_now
from imagefarm.store.audit import append_many
from imagefarm.store.bulk_insert import insert_many
from imagefarm.store.models import Batch, Job
from scheduler.assets.store import record_use


def find_rendered(
    session: Session, tenant_id: str, hashes: Collection[str], channels: Sequence[str | Channel] = ()
) -> dict[str, tuple[str, int]]:
    """For each recipe hash that the tenant's succeeded jobs have: such a job, and how many pictures it has.

    With `channels`, only jobs whose batch asked for just these: a channel's file is made with its picture.
    """
    found = session.execute(
        select(Job.recipe_hash, Job.id, Job.count, Job.batch_id)
        .where(Job.recipe_hash.in_(hashes), Job.tenant_id == tenant_id, Job.state == JobState.SUCCEEDED, Job.reuses.is_(None))
        .order_by(Job.count, Job.id)  # the one with most pictures is last, and stays
    )
    rows = found.all()
    if channels:
        wanted = [channel if isinstance(channel, str) else channel.model_dump(mode="json") for channel in channels]
        batches = {row.batch_id for row in rows if row.batch_id is not None}
        options = session.execute(select(Batch.id, Batch.options).where(Batch.id.in_(batches)))
        alike = {batch_id for batch_id, kept in options if kept.get("channels") == wanted}
        rows = [row for row in rows if row.batch_id in alike]
    return {recipe_hash: (job_id, count) for recipe_hash, job_id, count, _ in rows}


def split(
    rows: list[dict[str, Any]], rendered: Mapping[str, tuple[str, int]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Prepared job rows that must render, and those that need not, which say so."""
    to_render, to_reuse = [], []
    for row in rows:
        job_id, count = rendered.get(row["recipe_hash"], ("", 0))
        if row["count"] <= count:
            warnings = [*row["warnings"], f"reuses the pictures of {job_id}: the same recipe"]
            to_reuse.append(row | {"reuses": job_id, "warnings": warnings})
        else:
            to_render.append(row)
    return to_render, to_reuse


def submit_reused(session: Session, rows: list[dict[str, Any]]) -> None:
    """Write jobs that have their pictures already, with their audit events, in the caller's transaction."""
    if not rows:
        return
    now = session.scalar(select(db_now())) or 0.0
    done = {"created_at": now, "finished_at": now, "actual_s": 0.0}
    finished = [{n: v for n, v in row.items() if n not in {"expires_in", "state"}} for row in rows]
    insert_many(session, Job, finished, state=JobState.SUCCEEDED, **done)
    record_use(session, rows)
    append_many(
        session,
        [("job.reused", row["id"], row["tenant_id"], {"recipe_hash": row["recipe_hash"], "of": row["reuses"]}) for row in rows],
    )
