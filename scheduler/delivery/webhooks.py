"""Webhooks (https://www.standardwebhooks.com): signed messages about ended jobs and batches, retried until they are accepted.

The sweep turns sealed audit events into messages in the order of the chain, so none is missed or duplicated. Tasks of
`scheduler.maintenance` send those that are due. A message that is not accepted for about a day is dead and can be replayed.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, get_args

from sqlalchemy import Select, func, insert, literal_column, select, update
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
"""Events that a webhook can subscribe to."""
KINDS: tuple[Kind, ...] = get_args(Kind)
BACKOFF_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 21600.0, 43200.0)
"""Seconds to wait after each failed try; after the last one a message is dead."""
TIMEOUT_S = 10.0
"""Seconds for one request, from the connection to the end of the response."""
TURN_S = 10.0
"""Seconds after which no further message of the same webhook is started, so that other webhooks get their turns."""
LEASE_S = 60.0
"""Seconds after which another task may serve a webhook whose turn has not ended, because the first task died."""
MAX_ENQUEUED_EVENTS = 2000
GONE = 410


def create_webhook(
    store: Store, settings: Settings, *, url: str, kinds: list[str], subject: str | None, tenant_id: str, by: str
) -> Webhook:
    """Register a URL; the response has its secret. Raises InvalidRequest for a forbidden address, FetchFailed."""
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
    """Disable this tenant's webhook (None: any tenant's). Repeating changes nothing. Raises NotFound."""
    with store.write() as session:
        hook = visible_webhook(session, webhook_id, tenant_id)
        if hook.disabled_at is None:
            hook.disabled_at = session.scalar(select(db_now()))
            append(session, "webhook.removed", hook.id, hook.tenant_id, {"by": by})


def replay_delivery(store: Store, webhook_id: str, delivery_id: str, tenant_id: str | None) -> WebhookDelivery:
    """Send a message of this tenant's webhook (None: any tenant's) again. Raises NotFound."""
    with store.write() as session:
        visible_webhook(session, webhook_id, tenant_id)
        delivery = session.get(WebhookDelivery, delivery_id)
        if delivery is None or delivery.webhook_id != webhook_id:
            raise NotFound(f"no delivery {delivery_id[:60]!r}")
        replay(session, delivery)
        return delivery


def enqueue_deliveries(session: Session) -> int:
    """Create messages for the events that were sealed since the last call, in the sweep's transaction; return how many."""
    _end_removed(session)
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


def _end_removed(session: Session) -> None:
    """Messages of a disabled webhook are not sent."""
    removed = select(Webhook.id).where(Webhook.disabled_at.is_not(None))
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.state == literal_column("'waiting'"), WebhookDelivery.webhook_id.in_(removed))
        .values(state="dead", error="the webhook was removed", finished_at=db_now())
    )


def _body(event: Event) -> str:
    data = {name: value for name, value in event.data.items() if name != "owner"}
    at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": event.kind, "timestamp": at, "data": {"id": event.subject, **data}}, ensure_ascii=False)


def count_due(session: Session, limit: int) -> int:
    """How many webhooks have due messages and no task that sends them; counts no further than `limit`."""
    return session.scalar(select(func.count()).select_from(_due_webhooks().limit(limit).subquery())) or 0


def deliver_due(store: Store, settings: Settings, *, is_over: Callable[[], bool] = lambda: False) -> int:
    """Send the due messages of one webhook one after another; return how many were tried, 0 if none is due.

    The webhook whose last turn is longest ago is served. A turn is a lease in SQL, so two tasks never serve the same webhook, and
    a
    slow receiver delays only its own messages. A turn ends after `TURN_S`, or before the next message once `is_over()`.
    """
    with store.read() as session:
        if count_due(session, 1) == 0:
            return 0
    hook = store.run_with_retry(_lease)
    if hook is None:
        return 0
    deadline = time.monotonic() + TURN_S
    tried = 0
    while (delivery := _next_message(store, hook)) is not None:
        _deliver(store, settings, hook, delivery)
        tried += 1
        if is_over() or time.monotonic() > deadline:
            break
    store.run_with_retry(lambda session: _release(session, hook), durable=False)
    return tried


def _due_webhooks() -> Select[str]:
    message = select(WebhookDelivery.id).where(
        WebhookDelivery.webhook_id == Webhook.id,
        WebhookDelivery.state == literal_column("'waiting'"),  # spelt out as in the partial index
        WebhookDelivery.next_at <= db_now(),
    )
    return select(Webhook.id).where(Webhook.disabled_at.is_(None), Webhook.leased_until <= db_now(), message.exists())


def _lease(session: Session) -> Webhook | None:
    """Start a turn of the webhook that has waited longest for one."""
    first = _due_webhooks().order_by(Webhook.leased_until).limit(1).with_for_update(skip_locked=True)
    webhook_id = session.scalar(first)
    if webhook_id is None:
        return None
    session.execute(update(Webhook).where(Webhook.id == webhook_id).values(leased_until=db_now() + LEASE_S))
    return session.get_one(Webhook, webhook_id)


def _release(session: Session, hook: Webhook) -> None:
    own = (Webhook.id == hook.id, Webhook.leased_until == hook.leased_until)
    session.execute(update(Webhook).where(*own).values(leased_until=db_now()))


def _next_message(store: Store, hook: Webhook) -> WebhookDelivery | None:
    """The next due message of an enabled webhook that this task still leases."""
    statement = (
        select(WebhookDelivery)
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .where(
            WebhookDelivery.webhook_id == hook.id,
            WebhookDelivery.state == literal_column("'waiting'"),
            WebhookDelivery.next_at <= db_now(),
            Webhook.disabled_at.is_(None),
            Webhook.leased_until == hook.leased_until,
            Webhook.leased_until > db_now(),
        )
        .order_by(WebhookDelivery.next_at)
        .limit(1)
    )
    with store.read() as session:
        return session.scalar(statement)


def _deliver(store: Store, settings: Settings, hook: Webhook, delivery: WebhookDelivery) -> None:
    status, error = None, None
    try:
        status = _send(settings, hook, delivery)
        error = None if 200 <= status < 300 else f"it answered {status}"
    except (FetchFailed, InvalidRequest) as failure:
        error = failure.detail
    tries = delivery.tries + 1
    final = error is None or tries > len(BACKOFF_S) or status == GONE

    def record(session: Session) -> None:
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
        if status == GONE:  # the receiver asked to stop messages
            session.execute(update(Webhook).where(Webhook.id == hook.id).values(disabled_at=db_now()))

    store.run_with_retry(record)
    if error is not None:
        log.warning("webhook.failed", delivery=delivery.id, webhook=hook.id, tries=tries, error=error, dead=final)


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
    """Send a message again from the first try, under its own id, in the caller's transaction."""
    now = session.scalar(select(db_now())) or 0.0
    delivery.state, delivery.tries, delivery.next_at, delivery.finished_at = "waiting", 0, now, None
