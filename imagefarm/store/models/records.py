"""Tables of the farm's own records: audit, idempotency, sweep state and chart totals."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from imagefarm.store.models.base import HASH, ID, Base


class Event(Base):
    """The audit: append-only. The sweep seals new rows into a hash chain in the order in which it finds them."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[float]
    kind: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(64))
    tenant_id: Mapped[str | None] = mapped_column(ID)
    data: Mapped[dict[str, Any]]
    seq: Mapped[int | None] = mapped_column(Integer, unique=True)
    """Position in the chain, from 1; null until sealed."""
    hash: Mapped[str | None] = mapped_column(HASH)
    """SHA-256 over the previous hash and this row."""

    __table_args__ = (
        Index("ix_event_subject_id", "subject", "id"),
        Index("ix_event_unsealed", "id", sqlite_where=text("seq IS NULL"), postgresql_where=text("seq IS NULL")),
        {"sqlite_autoincrement": True},
    )


class Idempotency(Base):
    """The stored response to a request with an Idempotency-Key."""

    __tablename__ = "idempotency"
    tenant_id: Mapped[str] = mapped_column(ID, primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(HASH)
    status: Mapped[int | None] = mapped_column(Integer)
    """HTTP status of the stored response; null while the request runs."""
    response: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float]


class SweepState(Base):
    """The time of the last sweep, so that the next sweep detects a gap. The table has one row."""

    __tablename__ = "sweep_state"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    last_at: Mapped[float]
    reap_after: Mapped[float]
    """Leases are not reaped before this time, because after a gap every lease looks expired."""
    enqueued_seq: Mapped[int] = mapped_column(Integer, default=0)
    """The last event of the chain that was turned into webhook messages."""
    drift: Mapped[int] = mapped_column(Integer, default=0)
    """How many backlog counters have been corrected in total."""


class Rollup(Base):
    """Totals of one minute or one hour, for the charts. `scheduler.metrics.rollup` writes them."""

    __tablename__ = "rollup"
    step: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """60 or 3600 seconds."""
    at: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """Start of the period in seconds since 1970, a multiple of its length."""
    images: Mapped[int] = mapped_column(Integer, default=0)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    """Attempts that failed, crashed or were retried."""
    loads: Mapped[int] = mapped_column(Integer, default=0)
    """Number of model loads."""
    gpu_s: Mapped[float] = mapped_column(default=0.0)
    wait: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Jobs by waiting time: counts per bucket of the histogram."""
    render: Mapped[dict[str, Any]] = mapped_column(default=dict)
    counted: Mapped[bool] = mapped_column(default=False)
    """Whether the sweep has counted this period. A model load creates the row earlier."""
