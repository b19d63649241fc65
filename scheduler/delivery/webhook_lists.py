"""Reads of webhooks and of their messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from imagefarm.errors import NotFound
from imagefarm.store.models import Webhook, WebhookDelivery

MAX_WEBHOOKS = 1000


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message and its destination."""

    delivery: WebhookDelivery
    url: str


def visible_webhook(session: Session, webhook_id: str, tenant_id: str | None) -> Webhook:
    """The webhook, if it belongs to this tenant (None: any tenant). Raises NotFound."""
    hook = session.get(Webhook, webhook_id)
    if hook is None or tenant_id not in {None, hook.tenant_id}:
        raise NotFound(f"no webhook {webhook_id[:60]!r}")
    return hook


def list_webhooks(session: Session, tenant_id: str | None, limit: int = MAX_WEBHOOKS) -> Sequence[Webhook]:
    """The newest enabled webhooks of a tenant (None: any tenant)."""
    statement = select(Webhook).where(Webhook.disabled_at.is_(None)).order_by(Webhook.id.desc()).limit(limit)
    if tenant_id is not None:
        statement = statement.where(Webhook.tenant_id == tenant_id)
    return session.scalars(statement).all()


def count_deliveries(session: Session, webhook_ids: Sequence[str]) -> dict[tuple[str, str], int]:
    """Number of messages of these webhooks by webhook and state."""
    rows = session.execute(
        select(WebhookDelivery.webhook_id, WebhookDelivery.state, func.count())
        .where(WebhookDelivery.webhook_id.in_(webhook_ids))
        .group_by(WebhookDelivery.webhook_id, WebhookDelivery.state)
    )
    return {(webhook_id, state): number for webhook_id, state, number in rows}


def list_deliveries(
    session: Session, webhook_id: str, *, limit: int, state: str | None = None, before: str | None = None
) -> Sequence[WebhookDelivery]:
    """The newest messages to a webhook, in that state if one is given, with an id below `before`."""
    statement = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if state is not None:
        statement = statement.where(WebhookDelivery.state == state)
    if before is not None:
        statement = statement.where(WebhookDelivery.id < before)
    return session.scalars(statement.order_by(WebhookDelivery.id.desc()).limit(limit)).all()


def newest_messages(session: Session, limit: int, webhook_id: str = "") -> list[SentMessage]:
    """The newest messages to that webhook; empty: to any webhook."""
    statement = select(WebhookDelivery, Webhook.url).join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
    if webhook_id:
        statement = statement.where(WebhookDelivery.webhook_id == webhook_id)
    rows = session.execute(statement.order_by(WebhookDelivery.id.desc()).limit(limit))
    return [SentMessage(delivery, url) for delivery, url in rows]
