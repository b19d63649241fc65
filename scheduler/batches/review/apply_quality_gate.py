"""Applies the quality gate in the transaction that commits a job's images: verdicts, approvals and re-rolls, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from imagefarm.errors import LimitExceeded
from imagefarm.settings import Settings
from imagefarm.states import BatchState
from imagefarm.store import db_now
from imagefarm.store.audit import append_many
from imagefarm.store.models import Batch, Image, ImageHash, Job
from scheduler.batches.review import picks
from scheduler.batches.review.picks import ImageRef, Picked
from scheduler.batches.table.quality_gate import ACCEPT, REROLL, REVIEW, QualityGate, distance

BY = "gate"


@dataclass(frozen=True, slots=True)
class GateOnCommit:
    """Applies a batch's gate in the transaction that commits a job's images (see `scheduler.queue.finish.OnCommit`)."""

    batch_id: str
    gate: QualityGate
    settings: Settings

    def lock(self, session: Session) -> None:
        """Lock the batch before its jobs, as a cancel does, to avoid deadlocks. Sibling jobs take turns."""
        session.execute(select(Batch.id).where(Batch.id == self.batch_id).with_for_update())

    def apply(self, session: Session, job: Job, images: Sequence[Image]) -> None:
        """Judge the images that were just stored."""
        batch = session.get(Batch, self.batch_id)
        if batch is not None:
            apply_gate(session, self.gate, self.settings, batch=batch, job=job, images=images)


def apply_gate(
    session: Session, gate: QualityGate, settings: Settings, *, batch: Batch, job: Job, images: Sequence[Image]
) -> None:
    """Give each newly stored image of a job its verdict and approve or re-roll it accordingly, in the caller's transaction.

    The caller holds the lock on the batch. An image goes to review if it has used up its re-rolls or the queue has no room.
    """
    now = session.scalar(select(db_now())) or 0.0
    events: list[tuple[str, str, str | None, dict[str, Any]]] = []
    for image in images:
        scores = dict(image.scores or {})
        hashes = _siblings(session, batch.id, job.row or 0) if gate.duplicate is not None else []
        scores["duplicate"] = min((distance(scores["dhash"], other) for other in hashes), default=None)
        verdict, broken = gate.judge(scores)
        replaced_by = None
        if verdict == REROLL:
            replaced_by = _reroll(session, settings, batch=batch, job=job, image=image) if job.rerolls < gate.rerolls else None
            verdict = REROLL if replaced_by else REVIEW
        image.scores = scores | {"verdict": verdict, "broken": broken}
        if verdict != REROLL and gate.duplicate is not None:
            session.add(ImageHash(batch_id=batch.id, row=job.row or 0, image_id=image.id, dhash=scores["dhash"]))
            session.flush()
        decided = Picked.REROLLED if replaced_by else Picked.APPROVED if verdict == ACCEPT and gate.approve else None
        if decided is not None:
            ref = ImageRef(job.id, image.index)
            picks.set_pick(session, None, ref, batch.id, decided, at=now, replaced_by=replaced_by)
        data = {"batch": batch.id, "job": job.id, "verdict": verdict, "broken": broken, "seed": image.seed}
        data |= {"pick": decided, "by": BY} if decided else {}
        events.append(("image.judged", image.id, image.tenant_id, data | ({"replaced_by": replaced_by} if replaced_by else {})))
    append_many(session, events)


def _siblings(session: Session, batch_id: str, row: int) -> list[str]:
    return list(session.scalars(select(ImageHash.dhash).where(ImageHash.batch_id == batch_id, ImageHash.row == row)))


def _reroll(session: Session, settings: Settings, *, batch: Batch, job: Job, image: Image) -> str | None:
    """Queue the image with the next seed; return the new job's id, or None if the queue has no room."""
    reroll = picks.reroll_job(job, image, held=batch.state == BatchState.PAUSED)._replace(rerolls=job.rerolls + 1)
    try:
        picks.add_rerolls(session, batch, [reroll], settings, by=BY)
    except LimitExceeded:  # raised before anything is written
        return None
    return reroll.id
