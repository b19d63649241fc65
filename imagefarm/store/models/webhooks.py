"""Tables of webhooks and their messages."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from imagefarm.store.models.base import ID, Base


class Webhook(Base):
    """A tenant's webhook: its URL and the secret that signs its messages."""

    __tablename__ = "webhook"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID, index=True)
    url: Mapped[str] = mapped_column(String(2048))
    secret: Mapped[str]
    kinds: Mapped[list[Any]]
    subject: Mapped[str | None] = mapped_column(ID)
    """Only events of this job or batch are sent; null sends all events of the tenant."""
    created_at: Mapped[float]
    disabled_at: Mapped[float | None]
    leased_until: Mapped[float] = mapped_column(default=0.0, server_default="0")
    """The sending task's lease on this webhook's messages. In the past, it is the time when the last turn ended."""


class WebhookDelivery(Base):
    """One webhook message and its tries."""

    __tablename__ = "webhook_delivery"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ID, index=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    kind: Mapped[str] = mapped_column(String(40))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    """waiting, delivered or dead"""
    tries: Mapped[int] = mapped_column(Integer, default=0)
    next_at: Mapped[float]
    status: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float]
    finished_at: Mapped[float | None]

    __table_args__ = (
        Index(
            "ix_webhook_delivery_due",
            "webhook_id",
            "next_at",
            sqlite_where=text("state = 'waiting'"),
            postgresql_where=text("state = 'waiting'"),
        ),
    )
