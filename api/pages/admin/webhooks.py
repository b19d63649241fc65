"""`/admin/webhooks`: create a webhook (its secret is shown once), remove webhooks, list their messages and send one again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Response, redirect, request
from pydantic import ValidationError

from api.http.context import AppContext
from api.http.field_errors import field_errors
from api.pages.registry import Pages
from api.pages.rendering import page
from api.v1.schemas.webhooks import WebhookBody, WebhookResponse, register_webhook, webhook_response
from imagefarm.auth import Caller, Scope
from imagefarm.errors import FieldError, InvalidRequest
from scheduler.delivery import webhook_lists, webhooks
from scheduler.delivery.webhooks import KINDS

pages = Pages("pages_admin_webhooks")

SHOWN = 100
DELIVERIES_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRow:
    """A webhook and the numbers of its messages by state."""

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
    """The webhooks, the newest messages (of the webhook `only`, if set), and the form."""

    hooks: tuple[HookRow, ...]
    deliveries: tuple[WebhookDeliveryRow, ...]
    only: str
    kinds: tuple[str, ...]
    url: str
    chosen: tuple[str, ...]
    errors: tuple[FieldError, ...]
    made: WebhookResponse | None


@pages.get("/admin/webhooks", scope=Scope.FARM)
def webhooks_page(app_context: AppContext) -> Response:
    """List webhooks and the newest messages."""
    return page("admin/webhooks.html", _view(app_context))


@pages.post("/admin/webhooks", scope=Scope.FARM)
def webhooks_form(app_context: AppContext, caller: Caller) -> Response:
    """Create a webhook and show its secret once."""
    url, chosen = request.form.get("url", "").strip(), tuple(request.form.getlist("kind"))
    try:
        made = register_webhook(app_context, caller, WebhookBody.model_validate({"url": url, "kinds": list(chosen)}))
    except ValidationError as error:
        wrong = field_errors(error, WebhookBody, whole="form")
        return page("admin/webhooks.html", _view(app_context, url, chosen=chosen, errors=tuple(wrong)), 422)
    except InvalidRequest as error:
        return page("admin/webhooks.html", _view(app_context, url, chosen=chosen, errors=tuple(error.errors)), 422)
    response = page("admin/webhooks.html", _view(app_context, made=webhook_response(made, with_secret=True)), 201)
    response.headers["Cache-Control"] = "no-store"
    return response


@pages.post("/admin/webhooks/<webhook_id>/remove", scope=Scope.FARM)
def remove_form(app_context: AppContext, caller: Caller, webhook_id: str) -> Any:
    """Remove a webhook, and return to the list."""
    webhooks.remove_webhook(app_context.store, webhook_id, caller.tenant_filter, by=caller.name)
    return redirect("/admin/webhooks", 303)


@pages.post("/admin/webhooks/<webhook_id>/deliveries/<delivery_id>/replay", scope=Scope.FARM)
def replay_form(app_context: AppContext, caller: Caller, webhook_id: str, delivery_id: str) -> Any:
    """Send a message again, and return to the list."""
    webhooks.replay_delivery(app_context.store, webhook_id, delivery_id, caller.tenant_filter)
    return redirect("/admin/webhooks", 303)


def _view(
    app_context: AppContext,
    url: str = "",
    *,
    chosen: tuple[str, ...] = ("batch.done",),
    errors: tuple[FieldError, ...] = (),
    made: WebhookResponse | None = None,
) -> WebhooksView:
    only = request.args.get("webhook", "")[:40]
    with app_context.store.read() as session:
        hooks = webhook_lists.list_webhooks(session, None, SHOWN)
        numbers = webhook_lists.count_deliveries(session, [hook.id for hook in hooks])
        sent = webhook_lists.newest_messages(session, DELIVERIES_SHOWN, only)
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
                id=message.delivery.id,
                webhook_id=message.delivery.webhook_id,
                url=message.url,
                kind=message.delivery.kind,
                state=message.delivery.state,
                tries=message.delivery.tries,
                status=message.delivery.status,
                error=message.delivery.error or "",
                created_at=message.delivery.created_at,
            )
            for message in sent
        ),
        only=only,
        kinds=KINDS,
        url=url,
        chosen=chosen,
        errors=errors,
        made=made,
    )
