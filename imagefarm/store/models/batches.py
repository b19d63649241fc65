"""Tables of batches: input rows, picks, image hashes and the delivery to a bucket."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, LargeBinary, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from imagefarm.store.models.base import ID, Base


class Batch(Base):
    """A bulk submission: its jobs are rows x template x variants."""

    __tablename__ = "batch"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    name: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    template: Mapped[str] = mapped_column(Text, default="")
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Defaults, variants, seeds, name_pattern, canary, gate, channels, labels."""
    rows: Mapped[int] = mapped_column(Integer, default=0)
    accepted: Mapped[int] = mapped_column(Integer, default=0)
    rejected: Mapped[int] = mapped_column(Integer, default=0)
    errors: Mapped[list[Any]] = mapped_column(default=list)
    """The first errors: row, field, detail, remedy."""
    drafts: Mapped[str | None] = mapped_column(ID, index=True)
    """The batch whose approved images this one renders as finals."""
    created_at: Mapped[float]
    finished_at: Mapped[float | None]

    __table_args__ = (Index("ix_batch_tenant_id_id", "tenant_id", "id"),)


class BatchRows(Base):
    """A chunk of a batch's input rows, compressed. It serves the list of failed rows and the comparison with an updated table."""

    __tablename__ = "batch_rows"
    batch_id: Mapped[str] = mapped_column(ID, ForeignKey("batch.id"), primary_key=True)
    first_row: Mapped[int] = mapped_column(Integer, primary_key=True)
    rows: Mapped[bytes] = mapped_column(LargeBinary)
    """zlib over a JSON list of [number, cells, errors or null]."""


class ImageHash(Base):
    """64-bit dHash of each image of a batch. The gate compares them to find near-duplicates."""

    __tablename__ = "image_hash"
    batch_id: Mapped[str] = mapped_column(ID, primary_key=True)
    row: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    image_id: Mapped[str] = mapped_column(ID, ForeignKey("image.id", ondelete="CASCADE"), primary_key=True, index=True)
    dhash: Mapped[str] = mapped_column(String(16))


class Pick(Base):
    """The decision on one image of a batch: image `index` of the job, which may reuse another job's images."""

    __tablename__ = "pick"
    job_id: Mapped[str] = mapped_column(ID, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    batch_id: Mapped[str] = mapped_column(ID)
    pick: Mapped[str] = mapped_column(String(16))
    """approved, rejected or rerolled. An image without a row is open."""
    replaced_by: Mapped[str | None] = mapped_column(ID)
    """The job that re-rolls the image with another seed."""
    at: Mapped[float]

    __table_args__ = (Index("ix_pick_batch_id_pick_job_id_index", "batch_id", "pick", "job_id", "index"),)


class BatchDelivery(Base):
    """A batch's delivery to a bucket. Only the settings have the bucket's address and credentials."""

    __tablename__ = "batch_delivery"
    batch_id: Mapped[str] = mapped_column(ID, ForeignKey("batch.id", ondelete="CASCADE"), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    bucket: Mapped[str] = mapped_column(String(64))
    prefix: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    """open, waiting, delivered or failed"""
    files: Mapped[int] = mapped_column(Integer, default=0)
    """Files in the bucket, including the manifest. `sent` counts the files that the last try uploaded."""
    sent: Mapped[int] = mapped_column(Integer, default=0)
    bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    tries: Mapped[int] = mapped_column(Integer, default=0)
    next_at: Mapped[float]
    error: Mapped[str | None] = mapped_column(Text)
    finished_at: Mapped[float | None]

    __table_args__ = (
        Index(
            "ix_batch_delivery_due",
            "next_at",
            sqlite_where=text("state = 'waiting'"),
            postgresql_where=text("state = 'waiting'"),
        ),
    )
