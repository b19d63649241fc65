"""Compact cells for the contact sheet: ten thousand images take a few hundred kilobytes.

The page shows only the cells near the visible part and requests their images. It sends its decisions to the API's `picks`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from imagefarm.states import JobState
from imagefarm.store.models import Image, Job, Pick

CHUNK_SIZE = 500
"""Jobs per chunk."""
TITLE_CHARS = 80


def cells(session: Session, batch_id: str, after: str, limit: int = CHUNK_SIZE) -> dict[str, Any]:
    """Return a chunk of the sheet, in the order of the table.

    `jobs` are `[id, title, state, count, images]`, images `[index, image, pick, job that replaces it]`; `next` is the `after` of
    the next chunk, null at the end.
    """
    found = session.execute(
        select(Job.id, Job.name, Job.custom_id, Job.labels, Job.prompt, Job.state, Job.count.label("number"), Job.reuses)
        .where(Job.batch_id == batch_id, Job.id > after)
        .order_by(Job.id)
        .limit(limit + 1)
    ).all()
    shown = found[:limit]
    done = [job for job in shown if job.state == JobState.SUCCEEDED]
    makers = {job.reuses or job.id for job in done}
    pictures: dict[str, list[tuple[int, str]]] = {}
    rows = select(Image.job_id, Image.index, Image.id).where(Image.job_id.in_(makers)).order_by(Image.job_id, Image.index)
    for job_id, index, image_id in session.execute(rows):
        pictures.setdefault(job_id, []).append((index, image_id))
    picks = {
        (job_id, index): (pick, replaced_by or "")
        for job_id, index, pick, replaced_by in session.execute(
            select(Pick.job_id, Pick.index, Pick.pick, Pick.replaced_by).where(Pick.job_id.in_([job.id for job in done]))
        )
    }
    jobs = [
        [
            job.id,
            (job.name or job.custom_id or str(job.labels.get("sku") or job.prompt))[:TITLE_CHARS],
            job.state,
            job.number,
            [
                [index, image_id, *picks.get((job.id, index), ("", ""))]
                for index, image_id in (pictures.get(job.reuses or job.id, ()) if job.state == JobState.SUCCEEDED else ())
                if index < job.number
            ],
        ]
        for job in shown
    ]
    return {"jobs": jobs, "next": shown[-1].id if len(found) > limit else None}
