"""Reuses existing images: a job whose recipe the tenant has rendered before takes those images instead of rendering.

If the seeds stay the same between submissions (a fixed seed, or seeds derived from SKUs), submitting a table again renders only
the changed rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from imagefarm.imaging.channels import Channel
from imagefarm.states import JobState
from imagefarm.store import db_now
from imagefarm.store.audit import append_many
from imagefarm.store.bulk_insert import insert_many
from imagefarm.store.models import Batch, Job
from scheduler.assets.store import record_use
from scheduler.queue.new_job import NewJob


def find_rendered(
    session: Session, tenant_id: str, hashes: Collection[str], channels: Sequence[str | Channel] = ()
) -> dict[str, tuple[str, int]]:
    """By recipe hash: the id of a succeeded job of the tenant with that recipe, and its number of images.

    With `channels`, only jobs whose batch has exactly these channels, because a channel's file is made with its image.
    """
    found = session.execute(
        select(Job.recipe_hash, Job.id, Job.count, Job.batch_id)
        .where(Job.recipe_hash.in_(hashes), Job.tenant_id == tenant_id, Job.state == JobState.SUCCEEDED, Job.reuses.is_(None))
        .order_by(Job.count, Job.id)  # the last one, with the most images, is kept
    )
    rows = found.all()
    if channels:
        wanted = [channel if isinstance(channel, str) else channel.model_dump(mode="json") for channel in channels]
        batches = {row.batch_id for row in rows if row.batch_id is not None}
        options = session.execute(select(Batch.id, Batch.options).where(Batch.id.in_(batches)))
        alike = {batch_id for batch_id, kept in options if kept.get("channels") == wanted}
        rows = [row for row in rows if row.batch_id in alike]
    return {recipe_hash: (job_id, count) for recipe_hash, job_id, count, _ in rows}


def split(jobs: list[NewJob], rendered: Mapping[str, tuple[str, int]]) -> tuple[list[NewJob], list[NewJob]]:
    """Split new jobs into those that must render and those that reuse images. The latter get a warning."""
    to_render, to_reuse = [], []
    for job in jobs:
        job_id, count = rendered.get(job.recipe_hash, ("", 0))
        if job.count <= count:
            warnings = [*job.warnings, f"reuses the pictures of {job_id}: the same recipe"]
            to_reuse.append(job._replace(reuses=job_id, warnings=warnings))
        else:
            to_render.append(job)
    return to_render, to_reuse


def submit_reused(session: Session, jobs: list[NewJob]) -> None:
    """Write jobs that reuse images as succeeded, with their audit events, in the caller's transaction."""
    if not jobs:
        return
    now = session.scalar(select(db_now())) or 0.0
    done = [job._replace(state=str(JobState.SUCCEEDED), created_at=now, expires_in=None).columns() for job in jobs]
    insert_many(session, Job, done, finished_at=now, actual_s=0.0)
    record_use(session, [(job.id, job.recipe) for job in jobs])
    append_many(
        session,
        [("job.reused", job.id, job.tenant_id, {"recipe_hash": job.recipe_hash, "of": job.reuses}) for job in jobs],
    )
