"""Webhooks (https://www.standardwebhooks.com): what ended is told to those who asked, signed, until they take it.

The sweep turns sealed audit events into deliveries, in the order of the chain, so none is missed or told twice; a thread
of the scheduler sends those that are due. A delivery that nobody takes for about a day is dead and can be replayed.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
from datetime import UTC, datetime
from typing import Literal, get_args

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session
from standardwebhooks import Webhook as Signer

from imagefarm.errors import InvalidRequest, NotFound
from imagefarm.ids import new_id
from imagefarm.logs import get_logger
from imagefarm.settings import Settings
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append
from imagefarm.store.models import Event, SweepState, Webhook, WebhookDelivery
from scheduler.assets.safe_fetch import FetchFailed, check_url, fetch
from scheduler.delivery.webhook_lists import visible_webhook

log = get_logger(__name__)

Kind = Literal[
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "batch.done",
    "batch.cancelled",
    "batch.stopped",
    "batch.delivered",
    "batch.undelivered",
]
"""Events that can be told."""
KINDS: tuple[Kind, ...] = get_args(Kind)
BACKOFF_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 21600.0, 43200.0)
"""Pause after each failed try; after the last a delivery is dead."""
TIMEOUT_S = 10.0
SENDING_S = 60.0
"""A delivery that was taken and not reported for so long is due again: its sender died."""
CHUNK_SIZE = 10
MAX_ENQUEUED_EVENTS = 2000
GONE = 410


def create_webhook(
    store: Store, settings: Settings, *, url: str, kinds: list[str], subject: str | None, tenant_id: str, by: str
) -> Webhook:
    """Register a URL; its secret is in the answer. Raises InvalidRequest for one that leads nowhere allowed, FetchFailed."""
    check_url(url, allow_private=settings.allow_private_urls)
    webhook_id = new_id("hook")
    with store.write() as session:
        session.execute(
            insert(Webhook).values(
                id=webhook_id,
                tenant_id=tenant_id,
                url=url,
                secret="whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
                kinds=kinds,
                subject=subject,
                created_at=db_now(),
            )
        )
        append(session, "webhook.created", webhook_id, tenant_id, {"by": by, "kinds": kinds})
        return session.get_one(Webhook, webhook_id)


def remove_webhook(store: Store, webhook_id: str, tenant_id: str | None, *, by: str) -> None:
    """Send nothing more to this tenant's webhook (None: anybody's). Removing it again changes nothing. Raises NotFound."""
    with store.write() as session:
        hook = visible_webhook(session, webhook_id, tenant_id)
        if hook.disabled_at is None:
            hook.disabled_at = session.scalar(select(db_now()))
            append(session, "webhook.removed", hook.id, hook.tenant_id, {"by": by})


def replay_delivery(store: Store, webhook_id: str, delivery_id: str, tenant_id: str | None) -> WebhookDelivery:
    """Send a message to this tenant's webhook (None: anybody's) again. Raises NotFound."""
    with store.write() as session:
        visible_webhook(session, webhook_id, tenant_id)
        delivery = session.get(WebhookDelivery, delivery_id)
        if delivery is None or delivery.webhook_id != webhook_id:
            raise NotFound(f"no delivery {delivery_id[:60]!r}")
        replay(session, delivery)
        return delivery


def enqueue_deliveries(session: Session) -> int:
    """Make deliveries of the events that were sealed since the last time, in the sweep's transaction; return how many."""
    state = session.get_one(SweepState, 1)
    hooks = session.scalars(select(Webhook).where(Webhook.disabled_at.is_(None))).all()
    last = session.scalar(select(func.max(Event.seq))) or 0
    if not hooks:
        state.enqueued_seq = last
        return 0
    events = session.scalars(
        select(Event).where(Event.seq > state.enqueued_seq, Event.kind.in_(KINDS)).order_by(Event.seq).limit(MAX_ENQUEUED_EVENTS)
    ).all()
    rows = []
    for event in events:
        for hook in hooks:
            wanted = event.kind in hook.kinds and hook.subject in {None, event.subject} and event.at >= hook.created_at
            if wanted and hook.tenant_id == event.tenant_id:
                rows.append(
                    {
                        "id": new_id("msg"),
                        "webhook_id": hook.id,
                        "tenant_id": hook.tenant_id,
                        "kind": event.kind,
                        "body": _body(event),
                        "state": "waiting",
                        "tries": 0,
                        "next_at": event.at,
                        "created_at": event.at,
                    }
                )
    if rows:
        session.execute(insert(WebhookDelivery), rows)
    state.enqueued_seq = (events[-1].seq or last) if len(events) == MAX_ENQUEUED_EVENTS else last
    return len(rows)


def _body(event: Event) -> str:
    data = {name: value for name, value in event.data.items() if name != "owner"}
    at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": event.kind, "timestamp": at, "data": {"id": event.subject, **data}}, ensure_ascii=False)


def deliver_due(store: Store, settings: Settings) -> int:
    """Send some of the deliveries that are due; return how many were tried. Two senders never take the same one."""

    def take(session: Session) -> list[WebhookDelivery]:
        due = (
            select(WebhookDelivery.id)
            .where(WebhookDelivery.state == "waiting", WebhookDelivery.next_at <= db_now())
            .order_by(WebhookDelivery.next_at)
            .limit(CHUNK_SIZE)
            .with_for_update(skip_locked=True)
        )
        ids = session.scalars(due).all()
        session.execute(update(WebhookDelivery).where(WebhookDelivery.id.in_(ids)).values(next_at=db_now() + SENDING_S))
        return list(session.scalars(select(WebhookDelivery).where(WebhookDelivery.id.in_(ids)).order_by(WebhookDelivery.id)))

    with store.read() as session:
        if (
            session.scalar(
                select(WebhookDelivery.id).where(WebhookDelivery.state == "waiting", WebhookDelivery.next_at <= db_now()).limit(1)
            )
            is None
        ):
            return 0
    taken = store.run_with_retry(take)
    for delivery in taken:
        _deliver(store, settings, delivery)
    return len(taken)


def _deliver(store: Store, settings: Settings, delivery: WebhookDelivery) -> None:
    with store.read() as session:
        hook = session.get(Webhook, delivery.webhook_id)
    status, error = None, None
    if hook is None or hook.disabled_at is not None:
        error = "the webhook was removed"
    else:
        try:
            status = _send(settings, hook, delivery)
            error = None if 200 <= status < 300 else f"it answered {status}"
        except (FetchFailed, InvalidRequest) as failure:
            error = failure.detail
    tries = delivery.tries + 1
    final = error is None or tries > len(BACKOFF_S) or hook is None or hook.disabled_at is not None or status == GONE
    with store.write() as session:
        session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.id == delivery.id)
            .values(
                state="delivered" if error is None else "dead" if final else "waiting",
                tries=tries,
                status=status,
                error=error,
                next_at=db_now() + (0 if final else BACKOFF_S[tries - 1]),
                finished_at=db_now() if final else None,
            )
        )
        if status == GONE:  # the receiver asks to be told no more
            session.execute(update(Webhook).where(Webhook.id == delivery.webhook_id).values(disabled_at=db_now()))
    if error is not None:
        log.warning("webhook.failed", delivery=delivery.id, webhook=delivery.webhook_id, tries=tries, error=error, dead=final)


def _send(settings: Settings, hook: Webhook, delivery: WebhookDelivery) -> int:
    target = check_url(hook.url, allow_private=settings.allow_private_urls)
    now = datetime.now(UTC)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Signer(hook.secret).sign(delivery.id, now, delivery.body),
    }
    return fetch(target, "POST", content=delivery.body.encode(), headers=headers, timeout_s=TIMEOUT_S).status


def replay(session: Session, delivery: WebhookDelivery) -> None:
    """Send a delivery again from the first try, under its own id, in the caller's transaction."""
    now = session.scalar(select(db_now())) or 0.0
    delivery.state, delivery.tries, delivery.next_at, delivery.finished_at = "waiting", 0, now, None


class WebhookSender:
    """Sends what is due off the sweep's path: one thread, woken by each sweep."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Start sending unless it is being done already."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while deliver_due(self.store, self.settings):
                pass
        except Exception as error:  # noqa: BLE001 - a thread's end would be silent; the next sweep wakes a new one
            log.error("webhook.sender_failed", error=str(error)[:300])
