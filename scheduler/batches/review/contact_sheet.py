"""The images of a batch for review: page by page in job order, each with its pick."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from imagefarm.states import JobState
from imagefarm.store.models import Image, Job, Pick
from scheduler.batches.review.picks import ImageRef
from scheduler.batches.table.file_names import file_stem


@dataclass(frozen=True, slots=True)
class Shown:
    """An image with its job and its pick."""

    job: Job
    image: Image
    pick: Pick | None

    @property
    def name(self) -> str | None:
        """File name without extension."""
        return None if self.job.name is None else file_stem(self.job.name, self.image.index, self.job.count)

    @property
    def image_ref(self) -> ImageRef:
        return ImageRef(self.job.id, self.image.index)


def pictures_of(
    session: Session,
    batch_id: str,
    *,
    after: ImageRef | None,
    limit: int,
    pick: str | None = None,
    verdict: str | None = None,
) -> list[Shown]:
    """Up to `limit` images after `after`. `pick`: approved, rejected, rerolled or open; `verdict`: the verdict of the gate."""
    where: list[ColumnElement[bool]] = [Job.batch_id == batch_id, Job.state == JobState.SUCCEEDED, Image.index < Job.count]
    if after is not None:
        where.append(or_(Job.id > after.job_id, and_(Job.id == after.job_id, Image.index > after.index)))
        where.append(Job.id >= after.job_id)  # a range that the index serves
    if pick == "open":
        where.append(Pick.pick.is_(None))
    elif pick is not None:
        where.append(Pick.pick == pick)
    if verdict is not None:
        where.append(Image.scores["verdict"].as_string() == verdict)
    found = session.execute(
        select(Job, Image, Pick)
        .join(Image, Image.job_id == func.coalesce(Job.reuses, Job.id))
        .outerjoin(Pick, and_(Pick.job_id == Job.id, Pick.index == Image.index))
        .where(*where)
        .order_by(Job.id, Image.index)
        .limit(limit)
    )
    return [Shown(job, image, decided) for job, image, decided in found]
