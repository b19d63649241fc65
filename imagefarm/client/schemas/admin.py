"""Objects that an admin manages: keys, users, tenants, settings, the audit."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from imagefarm.client.schemas.base import ResponseModel


class ApiKey(ResponseModel):
    """An API key. Only the response that creates the key has `key`."""

    id: str
    name: str
    prefix: str
    tenant: str
    scopes: list[str]
    limits: dict[str, int] = Field(default_factory=dict)
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    key: str | None = Field(default=None, repr=False)


class User(ResponseModel):
    """A user who signs in to the pages."""

    id: str
    name: str
    role: str
    tenant: str
    created_at: datetime
    disabled_at: datetime | None = None
    last_sign_in_at: datetime | None = None


class Tenant(ResponseModel):
    """A tenant: its weight, its limits and their use, and its share of today's work."""

    id: str
    name: str
    weight: float
    limits: dict[str, int] = Field(default_factory=dict)
    queued: int
    max_queued: int
    running: int
    max_running: int
    images_today: int
    images_per_day: int | None
    pixels: int | None
    steps: int | None
    share: float
    fair_share: float


class Setting(ResponseModel):
    """A setting in force, as text, and its origin. Secrets are masked."""

    name: str
    value: str
    origin: str
    meaning: str = ""


class Event(ResponseModel):
    """One entry of the audit."""

    id: int
    at: datetime
    kind: str
    subject: str
    data: dict[str, Any] = Field(default_factory=dict)


class EventList(ResponseModel):
    """One page of the audit; `next_cursor` is None on the last."""

    items: list[Event]
    next_cursor: str | None = None


class Chain(ResponseModel):
    """The result of a verification of the audit."""

    whole: bool
    sealed: int
    unsealed: int
    head: str
    broken_at: int | None = None
    detail: str
