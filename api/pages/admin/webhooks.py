"""`/admin/webhooks`: webhooks made (their secret shown once), removed; what was sent to them, and sending it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, redirect, request
from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.http.auth import authenticate, require
from api.http.context import AppContext, current_app_context
from api.http.field_errors import field_errors
from api.pages.rendering import page
from api.v1 import webhooks as api_webhooks
from imagefarm.auth import Caller, Scope
from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.store.models import Webhook, WebhookDelivery
from scheduler.delivery.webhooks import KINDS

pages = Blueprint("pages_admin_webhooks", __name__)

SHOWN = 100
DELIVERIES_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRow:
    """A webhook and what became of its messages."""

    id: str
    url: str
    kinds: tuple[str, ...]
    subject: str
    created_at: float
    waiting: int
    delivered: int
    dead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDeliveryRow:
    """A message to a webhook."""

    id: str
    webhook_id: str
    url: str
    kind: str
    state: str
    tries: int
    status: int | None
    error: str
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhooksView:
    """The webhooks, the newest messages (of one, if `only` says so), and the form."""

    hooks: tuple[HookRow, ...]
    deliveries: tuple[WebhookDeliveryRow, ...]
    only: str
    kinds: tuple[str, ...]
    url: str
    chosen: tuple[str, ...]
    errors: tuple[FieldError, ...]
    made: api_webhooks.WebhookResponse | None


@pages.get("/admin/webhooks")
def webhooks_page() -> Response:
    """List webhooks and the newest messages."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.ADMIN)
    return page("admin_webhooks.html", _view(app_context))


@pages.post("/admin/webhooks")
def webhooks_form() -> Response:
    """Make a webhook and show its secret, this once."""
    app_context = current_app_context()
    caller: Caller = authenticate(app_context)
    require(caller, Scope.ADMIN)
    url, chosen = request.form.get("url", "").strip(), tuple(request.form.getlist("kind"))
    try:
        body = api_webhooks.WebhookBody.model_validate({"url": url, "kinds": list(chosen)})
        made = api_webhooks.create_webhook(app_context, caller, body)
    except ValidationError as error:
        wrong = field_errors(error, api_webhooks.WebhookBody, whole="form")
        return page("admin_webhooks.html", _view(app_context, url, chosen=chosen, errors=tuple(wrong)), 422)
    except InvalidRequest as error:
        return page("admin_webhooks.html", _view(app_context, url, chosen=chosen, errors=tuple(error.errors)), 422)
    response = page("admin_webhooks.html", _view(app_context, made=made), 201)
    response.headers["Cache-Control"] = "no-store"
    return response


@pages.post("/admin/webhooks/<webhook_id>/remove")
def remove_form(webhook_id: str) -> Any:
    """Remove a webhook, and go back to the list."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.ADMIN)
    api_webhooks.delete_webhook(app_context, caller, webhook_id)
    return redirect("/admin/webhooks", 303)


@pages.post("/admin/webhooks/<webhook_id>/deliveries/<delivery_id>/replay")
def replay_form(webhook_id: str, delivery_id: str) -> Any:
    """Send a message again, and go back to the list."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.ADMIN)
    api_webhooks.replay_delivery(app_context, caller, webhook_id, delivery_id)
    return redirect("/admin/webhooks", 303)


def _view(
    app_context: AppContext,
    url: str = "",
    *,
    chosen: tuple[str, ...] = ("batch.done",),
    errors: tuple[FieldError, ...] = (),
    made: api_webhooks.WebhookResponse | None = None,
) -> WebhooksView:
    only = request.args.get("webhook", "")[:40]
    with app_context.store.read() as session:
        hooks = session.scalars(
            select(Webhook).where(Webhook.disabled_at.is_(None)).order_by(Webhook.id.desc()).limit(SHOWN)
        ).all()
        numbers = _numbers(session, [hook.id for hook in hooks])
        statement = select(WebhookDelivery, Webhook.url).join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        if only:
            statement = statement.where(WebhookDelivery.webhook_id == only)
        sent = session.execute(statement.order_by(WebhookDelivery.id.desc()).limit(DELIVERIES_SHOWN)).all()
    return WebhooksView(
        hooks=tuple(
            HookRow(
                id=hook.id,
                url=hook.url,
                kinds=tuple(map(str, hook.kinds)),
                subject=hook.subject or "",
                created_at=hook.created_at,
                waiting=numbers.get((hook.id, "waiting"), 0),
                delivered=numbers.get((hook.id, "delivered"), 0),
                dead=numbers.get((hook.id, "dead"), 0),
            )
            for hook in hooks
        ),
        deliveries=tuple(
            WebhookDeliveryRow(
                id=row.id,
                webhook_id=row.webhook_id,
                url=address,
                kind=row.kind,
                state=row.state,
                tries=row.tries,
                status=row.status,
                error=row.error or "",
                created_at=row.created_at,
            )
            for row, address in sent
        ),
        only=only,
        kinds=KINDS,
        url=url,
        chosen=chosen,
        errors=errors,
        made=made,
    )


def _numbers(session: Session, hooks: list[str]) -> dict[tuple[str, str], int]:
    rows = session.execute(
        select(WebhookDelivery.webhook_id, WebhookDelivery.state, func.count())
        .where(WebhookDelivery.webhook_id.in_(hooks))
        .group_by(WebhookDelivery.webhook_id, WebhookDelivery.state)
    )
    return {(hook, state): number for hook, state, number in rows}
