"""Webhooks and their messages."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from imagefarm.client.schemas.base import ResponseModel


class Webhook(ResponseModel):
    """A webhook: its URL and event kinds. Only the response that creates it has `secret`."""

    id: str
    url: str
    kinds: list[str]
    subject: str | None = None
    secret: str | None = Field(default=None, repr=False)
    created_at: datetime


class WebhookDelivery(ResponseModel):
    """One message to a webhook: waiting, delivered or dead. `id` is the `webhook-id` header and stays the same at every try."""

    id: str
    kind: str
    state: str
    tries: int
    status: int | None = None
    error: str | None = None
    body: str
    next_at: datetime
    created_at: datetime
    finished_at: datetime | None = None


class WebhookDeliveryList(ResponseModel):
    """One page of messages; `next_cursor` is None on the last."""

    items: list[WebhookDelivery]
    next_cursor: str | None = None
