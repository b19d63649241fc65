"""Webhooks: register, list and remove them; list their deliveries and repeat one."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from api.http.cursor import make_cursor, read_cursor
from api.http.links import next_link
from api.http.routes import AppContext, Caller, Reply, Routes, Scope
from api.http.schemas import Query, ResponseModel, Time
from api.v1.schemas.webhooks import WebhookBody, WebhookResponse, register_webhook, webhook_response
from imagefarm.ids import is_id
from imagefarm.store.models import WebhookDelivery
from scheduler.delivery import webhook_lists, webhooks

routes = Routes(tag="webhooks")

WebhookDeliveryState = Literal["waiting", "delivered", "dead"]


class WebhookList(ResponseModel):
    """All webhooks, newest first."""

    items: list[WebhookResponse]
    next_cursor: str | None


class WebhookDeliveryResponse(ResponseModel):
    """One message to a webhook. `id` is its `webhook-id` header and stays the same at every try."""

    id: str
    kind: str
    state: WebhookDeliveryState
    tries: int
    status: int | None
    error: str | None
    body: str
    next_at: Time
    created_at: Time
    finished_at: Time | None


class WebhookDeliveryList(ResponseModel):
    """A page of deliveries, newest first. `next_cursor` is null on the last page."""

    items: list[WebhookDeliveryResponse]
    next_cursor: str | None


class WebhookDeliveryQuery(Query):
    """Filters of the list of deliveries."""

    state: WebhookDeliveryState | None = None
    limit: int = Field(50, ge=1, le=200)
    cursor: Annotated[str, Field(max_length=200)] | None = Field(None, description="`next_cursor` of the previous page")


@routes.post("/api/v1/webhooks", scope=Scope.SUBMIT, response=WebhookResponse, status=201, errors=(404,))
def create_webhook(app_context: AppContext, caller: Caller, body: WebhookBody) -> WebhookResponse:
    """Register a webhook.

    Messages follow Standard Webhooks: headers `webhook-id`, `webhook-timestamp` and `webhook-signature`, signed with the secret
    in the response. No other response contains the secret. A message is retried for about a day. Respond with 2xx to accept it,
    with 410 to disable the webhook.
    """
    return webhook_response(register_webhook(app_context, caller, body), with_secret=True)


@routes.get("/api/v1/webhooks", scope=Scope.READ, response=WebhookList)
def list_webhooks(app_context: AppContext, caller: Caller) -> WebhookList:
    """List webhooks."""
    with app_context.store.read() as session:
        hooks = webhook_lists.list_webhooks(session, caller.tenant_filter)
    return WebhookList(items=[webhook_response(hook) for hook in hooks], next_cursor=None)


@routes.delete("/api/v1/webhooks/{webhook_id}", scope=Scope.SUBMIT, status=204)
def delete_webhook(app_context: AppContext, caller: Caller, webhook_id: str) -> Reply:
    """Remove a webhook.

    Its waiting messages are not sent.
    """
    webhooks.remove_webhook(app_context.store, webhook_id, caller.tenant_filter, by=caller.name)
    return Reply(None, 204)


@routes.get("/api/v1/webhooks/{webhook_id}/deliveries", scope=Scope.READ, response=WebhookDeliveryList)
def list_deliveries(app_context: AppContext, caller: Caller, webhook_id: str, query: WebhookDeliveryQuery) -> Reply:
    """List past and waiting deliveries of a webhook."""
    wanted = f"deliveries {webhook_id} {query.state}"
    before = read_cursor(query.cursor, wanted, form=partial(is_id, prefix="msg"))
    with app_context.store.read() as session:
        webhook_lists.visible_webhook(session, webhook_id, caller.tenant_filter)
        found = webhook_lists.list_deliveries(session, webhook_id, limit=query.limit + 1, state=query.state, before=before)
    cursor = make_cursor(found[query.limit - 1].id, wanted) if len(found) > query.limit else None
    items = [_delivery(delivery) for delivery in found[: query.limit]]
    return Reply(WebhookDeliveryList(items=items, next_cursor=cursor), headers=next_link(cursor))


@routes.post(
    "/api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay",
    scope=Scope.SUBMIT,
    response=WebhookDeliveryResponse,
    status=202,
)
def replay_delivery(app_context: AppContext, caller: Caller, webhook_id: str, delivery_id: str) -> WebhookDeliveryResponse:
    """Send a message again."""
    delivery = webhooks.replay_delivery(app_context.store, webhook_id, delivery_id, caller.tenant_filter)
    return _delivery(delivery)


def _delivery(delivery: WebhookDelivery) -> WebhookDeliveryResponse:
    return WebhookDeliveryResponse.model_validate(
        {name: getattr(delivery, name) for name in WebhookDeliveryResponse.model_fields}
    )
