"""Throughput of each lane, and when its waiting jobs will be done."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from imagefarm.ids import first_id_at
from imagefarm.store.models import Image, Job

LOOK_BACK_S = 300.0


@dataclass(frozen=True, slots=True)
class Throughput:
    """Jobs and images per minute, over the last five minutes."""

    jobs: float
    images: float

    def drain_s(self, queued: int) -> float | None:
        """Seconds until this many jobs are done at this rate; None while nothing moves."""
        return queued / self.jobs * 60 if self.jobs and queued else None


IDLE = Throughput(0.0, 0.0)


def lane_throughput(session: Session, now: float) -> dict[str, Throughput]:
    """The rate of each lane by model; a lane without finished images is absent."""
    rows = session.execute(
        select(Job.model, func.count(Job.id.distinct()), func.count())
        .join(Image, Image.job_id == Job.id)
        .where(Image.id >= first_id_at("img", now - LOOK_BACK_S), Image.created_at >= now - LOOK_BACK_S)
        .group_by(Job.model)
    )
    minutes = LOOK_BACK_S / 60
    return {model: Throughput(jobs / minutes, images / minutes) for model, jobs, images in rows}
