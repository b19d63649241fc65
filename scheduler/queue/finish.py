"""The end of an attempt: images, job, attempt and audit event in one fenced transaction, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from imagefarm.errors import LeaseLost
from imagefarm.ids import new_id
from imagefarm.settings import Settings
from imagefarm.states import JobState
from imagefarm.store import Store, connection_of
from imagefarm.store.audit import append_many
from imagefarm.store.compiled import CompiledStatement
from imagefarm.store.models import ChannelFile, Image, Job, Model
from scheduler.queue.claim import ClaimedJob, StoredShares, load_flow, lock_shares, save_shares
from scheduler.queue.retry import Failure, after_failure
from scheduler.queue.transition import change_state, change_state_to_succeeded

LEARNING_RATE = 0.1
"""Weight of the newest measurement in a model's learned cost."""

# compiled once: building them, and ORM objects, took longer than running them for every job
WARNINGS = select(Job.warnings).where(Job.id == bindparam("of_job"))
STORED = select(Image.storage_key, Image.id).where(Image.job_id == bindparam("of_job"))
INSERT_IMAGE = CompiledStatement(insert(Image))
LEARN_COST = CompiledStatement(
    update(Model.__table__)  # type: ignore[arg-type]
    .where(Model.__table__.c.name == bindparam("learnt_model"))
    .values(
        cost_s=func.coalesce(Model.__table__.c.cost_s, bindparam("unit_s")) * (1 - LEARNING_RATE)
        + bindparam("unit_s") * LEARNING_RATE
    )
)


@dataclass(frozen=True, slots=True)
class FinishedChannel:
    """An image's file for one channel, complete in storage."""

    channel: str
    storage_key: str
    format: str
    width: int
    height: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FinishedImage:
    """An image whose file is complete in storage under `storage_key`, ready to be committed."""

    index: int
    seed: int
    storage_key: str
    format: str
    width: int
    height: int
    bytes: int
    sha256: str
    pixel_sha256: str
    ms: float
    audit: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] | None = None
    """Measured scores by name; None if nothing was measured."""
    channels: tuple[FinishedChannel, ...] = ()


class OnCommit(Protocol):
    """A hook in the transaction that commits a job's images. The queue does not know what it decides.

    A transaction may be retried, and one object may serve many jobs at once, so it keeps no state between calls.
    """

    def lock(self, session: Session) -> None:
        """Lock the rows that other transactions lock before a job, such as its batch."""

    def apply(self, session: Session, job: Job, images: Sequence[Image]) -> None:
        """Act on the images that were just stored, in the order of their index."""


def succeed(
    store: Store,
    job: ClaimedJob,
    images: list[FinishedImage],
    *,
    actual_s: float,
    work: float = 0.0,
    warnings: list[str] | None = None,
    on_commit: OnCommit | None = None,
) -> list[str]:
    """Commit a rendered job; return the ids of its image rows.

    `actual_s` is the job's GPU time in seconds, its share of shared passes. `work` is what the job is worth in default images of
    its
    model (0: do not learn from it). `on_commit` acts in the same transaction. Raises LeaseLost if the attempt lost its job
    (cancelled, expired, claimed by another worker); the caller then deletes the files. Safe to repeat when the answer of a commit
    was
    lost: a job that this very attempt already finished counts as success.
    """
    if sorted(image.index for image in images) != list(range(job.count)):
        raise ValueError(f"job {job.id} needs images 0..{job.count - 1}, got {[image.index for image in images]}")

    def commit(session: Session) -> list[str]:
        queue = lock_shares(session)
        if on_commit is not None:
            on_commit.lock(session)
        sql = connection_of(session)
        every_warning = [*(sql.scalar(WARNINGS, {"of_job": job.id}) or []), *warnings] if warnings else None
        now = change_state_to_succeeded(session, job.fence, actual_s=actual_s, warnings=every_warning)
        if now is None:
            stored = dict(sql.execute(STORED, {"of_job": job.id}).all())
            if {image.storage_key for image in images} == set(stored):
                return [stored[image.storage_key] for image in images]
            raise LeaseLost(f"attempt {job.attempt} of {job.id} no longer owns it")
        rows = [
            {
                "id": new_id("img"),
                "job_id": job.id,
                "tenant_id": job.tenant_id,
                "index": image.index,
                "seed": str(image.seed),
                "storage_key": image.storage_key,
                "format": image.format,
                "width": image.width,
                "height": image.height,
                "bytes": image.bytes,
                "sha256": image.sha256,
                "pixel_sha256": image.pixel_sha256,
                "ms": image.ms,
                "audit": image.audit,
                "scores": image.scores,
                "created_at": now,
            }
            for image in images
        ]
        INSERT_IMAGE.run_each(sql, rows)
        _keep_channels(session, [str(row["id"]) for row in rows], images)
        append_many(session, [_told_of_job(job, images), *(_told_of_image(row) for row in rows)], at=now)
        if on_commit is not None:
            stored_images = session.scalars(select(Image).where(Image.job_id == job.id).order_by(Image.index)).all()
            on_commit.apply(session, session.get_one(Job, job.id), stored_images)
        _correct_charge(session, queue, job, actual_s)
        if work > 0 and actual_s > 0:
            _learn_cost(session, job.model, actual_s / work)
        return [str(row["id"]) for row in rows]

    return store.run_with_retry(commit)


Told = tuple[str, str, str | None, dict[str, Any]]


def _told_of_job(job: ClaimedJob, images: list[FinishedImage]) -> Told:
    hashes = [image.sha256 for image in sorted(images, key=lambda image: image.index)]
    data = {"attempt": job.attempt, "recipe_hash": job.recipe_hash, "sha256": hashes, "owner": job.owner}
    return "job.succeeded", job.id, job.tenant_id, data


def _told_of_image(row: dict[str, Any]) -> Told:
    data = {"job": row["job_id"], "key": row["storage_key"], "sha256": row["sha256"]}
    return "image.stored", row["id"], row["tenant_id"], data


def _keep_channels(session: Session, image_ids: list[str], images: list[FinishedImage]) -> None:
    """Insert the rows of the channel files."""
    rows = [
        {"image_id": image_id, **asdict(each)}
        for image_id, image in zip(image_ids, images, strict=True)
        for each in image.channels
    ]
    if rows:
        session.execute(insert(ChannelFile), rows)


def fail(store: Store, job: ClaimedJob, failure: Failure, settings: Settings) -> JobState | None:
    """End a failed attempt; return the job's new state, or None if the attempt was fenced off."""

    def work(session: Session) -> JobState | None:
        queue = lock_shares(session)
        changed = after_failure(session, job.fence, failure, settings)
        if changed is None:
            return None
        _correct_charge(session, queue, job, 0.0)
        return JobState(session.scalar(select(Job.state).where(Job.id == job.id)) or JobState.FAILED)

    return store.run_with_retry(work)


def release(store: Store, jobs: list[ClaimedJob], reason: str) -> None:
    """Give claimed jobs back unfinished, without counting the attempt against them (drain, swap, shutdown)."""

    def work(session: Session) -> None:
        queue = lock_shares(session)
        for job in jobs:
            changed = change_state(
                session,
                [Job.id == job.id, Job.attempt == job.attempt, Job.owner == job.owner],
                JobState.RUNNING,
                JobState.QUEUED,
                event="job.released",
                data={"reason": reason},
                outcome="released",
                reason=reason,
            )
            if changed:
                _correct_charge(session, queue, job, 0.0)

    store.run_with_retry(work)


def _correct_charge(session: Session, queue: StoredShares, job: ClaimedJob, actual_s: float) -> None:
    flow = load_flow(session, queue, job.priority_class, job.tenant_id)
    queue.correct(flow, actual_s - job.cost_s)
    save_shares(session, queue)


def _learn_cost(session: Session, model: str, unit_s: float) -> None:
    """Move the model's learned seconds of one default image towards the newest measurement."""
    LEARN_COST.run(connection_of(session), {"learnt_model": model, "unit_s": unit_s})
