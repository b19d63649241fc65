"""Tables of jobs: their attempts, images and channel files."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, ForeignKey, Index, Integer, String, Text, UniqueConstraint, false, literal_column, text
from sqlalchemy.orm import Mapped, mapped_column

from imagefarm.store.models.base import HASH, ID, Base


class Job(Base):
    """One recipe submitted by one tenant, with its state, attempt and lease. Only `scheduler.queue.transition` changes it."""

    __tablename__ = "job"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    priority_class: Mapped[str] = mapped_column(String(16))
    rank: Mapped[int] = mapped_column(Integer, default=0)
    """Order within a flow: lower values first; among equal values older jobs first."""
    model: Mapped[str] = mapped_column(String(64))
    compat_key: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    recipe: Mapped[dict[str, Any]]
    recipe_hash: Mapped[str] = mapped_column(HASH)
    prompt: Mapped[str] = mapped_column(Text)
    count: Mapped[int] = mapped_column(Integer)
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    custom_id: Mapped[str | None] = mapped_column(String(128))
    batch_id: Mapped[str | None] = mapped_column(ID, ForeignKey("batch.id"))
    row: Mapped[int | None] = mapped_column(Integer)
    """1-based row of the batch's table."""
    name: Mapped[str | None]
    """Stem of the file name in downloads and deliveries, from the batch's name pattern."""
    reuses: Mapped[str | None] = mapped_column(ID)
    """The job with the same recipe whose images this job reuses; null if the job renders its own."""
    rerolls: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """How many times the quality gate has re-rolled this image before."""
    from_image: Mapped[str | None] = mapped_column(ID)
    """The image that this job derives from: the image that a re-roll replaces, or the draft of a final."""
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    quota_id: Mapped[str | None] = mapped_column(ID)
    """The quota id of the key that submitted the job, if that key has limits of its own."""
    cost_s: Mapped[float]
    """Predicted GPU-seconds."""
    actual_s: Mapped[float | None]
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    crashes: Mapped[int] = mapped_column(Integer, default=0)
    preview: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether previews of the job's images are published with its progress."""
    owner: Mapped[str | None] = mapped_column(ID)
    """The worker incarnation that holds the lease."""
    lease_until: Mapped[float | None]
    not_before: Mapped[float] = mapped_column(default=0.0)
    expires_at: Mapped[float | None]
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]

    __table_args__ = (
        # for the claim: one flow's jobs of one model, best first
        Index(
            "ix_job_claim",
            "model",
            "priority_class",
            "tenant_id",
            "rank",
            "id",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
        # for leases: the sweep finds expired ones, a worker finds its own
        Index(
            "ix_job_lease",
            "lease_until",
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
        Index("ix_job_owner", "owner", sqlite_where=text("state = 'running'"), postgresql_where=text("state = 'running'")),
        Index(
            "ix_job_expires",
            "expires_at",
            sqlite_where=text("state IN ('queued', 'held') AND expires_at IS NOT NULL"),
            postgresql_where=text("state IN ('queued', 'held') AND expires_at IS NOT NULL"),
        ),
        Index(
            "ix_job_quota_id",
            "quota_id",
            "state",
            sqlite_where=text("quota_id IS NOT NULL AND state IN ('held', 'queued', 'running')"),
            postgresql_where=text("quota_id IS NOT NULL AND state IN ('held', 'queued', 'running')"),
        ),
        # for the lists
        Index("ix_job_tenant_id_id", "tenant_id", "id"),
        Index(
            "ix_job_single",
            "tenant_id",
            "id",
            sqlite_where=text("batch_id IS NULL"),
            postgresql_where=text("batch_id IS NULL"),
        ),
        Index("ix_job_tenant_id_state_id", "tenant_id", "state", "id"),
        Index("ix_job_state_id", "state", "id"),
        Index("ix_job_tenant_id_model_id", "tenant_id", "model", "id"),
        Index("ix_job_batch_id_state_id", "batch_id", "state", "id"),
        Index("ix_job_batch_id_id", "batch_id", "id"),
        Index("ix_job_recipe_hash", "recipe_hash"),
        Index(
            "ix_job_reuses",
            "reuses",
            sqlite_where=text("reuses IS NOT NULL"),
            postgresql_where=text("reuses IS NOT NULL"),
        ),
        Index(
            "ix_job_custom_id_id",
            "custom_id",
            "id",
            sqlite_where=text("custom_id IS NOT NULL"),
            postgresql_where=text("custom_id IS NOT NULL"),
        ),
    )


class Image(Base):
    """One output image: exactly one row per index of a succeeded job."""

    __tablename__ = "image"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    job_id: Mapped[str] = mapped_column(ID, ForeignKey("job.id"))
    tenant_id: Mapped[str] = mapped_column(ID)
    index: Mapped[int] = mapped_column(Integer)
    seed: Mapped[str] = mapped_column(String(20))
    """Unsigned 64-bit in decimal: exact in every database."""
    storage_key: Mapped[str] = mapped_column(String(512), unique=True)
    format: Mapped[str] = mapped_column(String(8))
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    bytes: Mapped[int] = mapped_column(Integer)
    sha256: Mapped[str] = mapped_column(HASH, index=True)
    pixel_sha256: Mapped[str] = mapped_column(HASH, index=True)
    ms: Mapped[float]
    """Milliseconds from claim to stored."""
    audit: Mapped[dict[str, Any]]
    """Inputs of a re-render: weights, versions, device, dtype, step shapes; and timings."""
    scores: Mapped[dict[str, Any] | None]
    """The quality gate's scores and verdict; null without a gate."""
    created_at: Mapped[float]

    __table_args__ = (UniqueConstraint("job_id", "index"), Index("ix_image_tenant_id_id", "tenant_id", "id"))


class ChannelFile(Base):
    """A file of an image for one channel."""

    __tablename__ = "channel_file"
    image_id: Mapped[str] = mapped_column(ID, ForeignKey("image.id", ondelete="CASCADE"), primary_key=True)
    channel: Mapped[str] = mapped_column(String(32), primary_key=True)
    storage_key: Mapped[str] = mapped_column(String(512), unique=True)
    format: Mapped[str] = mapped_column(String(8))
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    bytes: Mapped[int] = mapped_column(Integer)
    sha256: Mapped[str] = mapped_column(HASH)


FAILURE_CONDITION = "outcome IN ('failed', 'retry', 'crashed')"
"""Condition of a failed attempt. Every query must use this same text, or SQLite does not use the partial index."""
IS_FAILURE: ColumnElement[bool] = literal_column(f"attempt.{FAILURE_CONDITION}")


class Attempt(Base):
    """One claim of one job by one worker, and how it ended."""

    __tablename__ = "attempt"
    job_id: Mapped[str] = mapped_column(ID, ForeignKey("job.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    owner: Mapped[str] = mapped_column(ID)
    claimed_at: Mapped[float]
    ended_at: Mapped[float | None]
    outcome: Mapped[str | None] = mapped_column(String(32))
    """succeeded, failed, retry, crashed, expired, released or cancelled"""
    reason: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        # for the lists of a worker's jobs
        Index("ix_attempt_owner_job_id", "owner", "job_id"),
        # for the breaker: recent failures
        Index(
            "ix_attempt_failure",
            "ended_at",
            sqlite_where=text(FAILURE_CONDITION),
            postgresql_where=text(FAILURE_CONDITION),
        ),
        # and recent successes
        Index(
            "ix_attempt_succeeded",
            "ended_at",
            sqlite_where=text("outcome = 'succeeded'"),
            postgresql_where=text("outcome = 'succeeded'"),
        ),
    )
