"""Tables of workers, and of the facts that they learned about models."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from imagefarm.store.models.base import HASH, ID, Base


class Model(Base):
    """Facts that the farm learned about a model: whether it loads, its weights' digests, its cost and its micro-batch limits."""

    __tablename__ = "model"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), default="unknown")
    """unknown, ready, missing or invalid"""
    reason: Mapped[str] = mapped_column(Text, default="")
    digest: Mapped[str] = mapped_column(HASH, default="")
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Revision, hashes by file, parameters, bytes, load seconds."""
    cost_s: Mapped[float | None]
    """Learned GPU-seconds of one default image; null until measured."""
    load_s: Mapped[float | None]
    """Learned seconds of one load, which is the cost of a model swap."""
    micro_batch_limits: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Learned images per micro-batch, by shape."""
    updated_at: Mapped[float]


class Worker(Base):
    """One worker incarnation: a child process with its pipelines."""

    __tablename__ = "worker"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(16), index=True)
    desired_state: Mapped[str] = mapped_column(String(16), default="ready")
    """The operator's target state: ready, draining or quarantined."""
    device: Mapped[str]
    version: Mapped[str]
    serves: Mapped[list[Any]]
    resident: Mapped[list[Any]] = mapped_column(default=list)
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Memory, library versions, capabilities."""
    load: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Running images, current jobs and images per minute, as of the last heartbeat."""
    pending_commands: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    """Load and unload commands that the worker has not received yet: `{"do": "warm" | "unload", "model": ...}`."""
    reason: Mapped[str] = mapped_column(Text, default="")
    started_at: Mapped[float]
    heartbeat_at: Mapped[float]
