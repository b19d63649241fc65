"""Tables of tenants: their keys, users, browser sessions and daily use."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from imagefarm.store.models.base import HASH, ID, Base


class Tenant(Base):
    """A tenant. `limits` may narrow the farm's: queued, running, images_per_day, pixels, steps."""

    __tablename__ = "tenant"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(index=True, unique=True)
    weight: Mapped[float] = mapped_column(default=1.0)
    limits: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[float]


class ApiKey(Base):
    """A tenant's API key: a prefix to find it by, and the hash of the whole key. The key itself is never stored."""

    __tablename__ = "api_key"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID, index=True)
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    hash: Mapped[str] = mapped_column(HASH)
    scopes: Mapped[list[Any]]
    limits: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Limits of this key alone: queued, running, images_per_day, pixels, steps."""
    quota_id: Mapped[str | None] = mapped_column(ID)
    """The id under which the key's limits are counted: that of the key it was rotated from; null: its own."""
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    last_used_at: Mapped[float | None]
    lifetime_s: Mapped[float | None]
    """Requested seconds from creation to expiry; null: no expiry was requested."""


class UserAccount(Base):
    """A user who signs in with a name and a password."""

    __tablename__ = "user_account"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    """In lower case."""
    password_hash: Mapped[str]
    """argon2id, with its salt and its costs."""
    role: Mapped[str] = mapped_column(String(16))
    tenant_id: Mapped[str] = mapped_column(ID)
    created_at: Mapped[float]
    disabled_at: Mapped[float | None]
    last_sign_in_at: Mapped[float | None]


class WebSession(Base):
    """A browser session, opened by a user's password or by a key. The cookie's token is stored only as its hash."""

    __tablename__ = "web_session"
    token_hash: Mapped[str] = mapped_column(HASH, primary_key=True)
    user_id: Mapped[str | None] = mapped_column(ID, index=True)
    key_id: Mapped[str | None] = mapped_column(ID)
    created_at: Mapped[float]
    seen_at: Mapped[float] = mapped_column(index=True)


class Usage(Base):
    """Images and GPU-seconds submitted on one day (days since 1970, UTC) by a tenant, or by a key with limits of its own."""

    __tablename__ = "usage"
    tenant_id: Mapped[str] = mapped_column(ID, primary_key=True)
    day: Mapped[int] = mapped_column(Integer, primary_key=True)
    images: Mapped[int] = mapped_column(Integer, default=0)
    gpu_s: Mapped[float] = mapped_column(default=0.0)
    """Predicted GPU-seconds."""
