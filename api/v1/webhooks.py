"""Webhooks: register, list, remove; their deliveries, and sending one again."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.http.cursor import make_cursor, read_cursor
from api.http.routes import AppContext, Caller, Reply, Routes, Scope
from api.http.schemas import Body, Query, ResponseModel, Time
from api.v1.batches.routes import visible_batch
from api.v1.jobs.routes import next_link, visible_job
from imagefarm.errors import FieldError, InvalidRequest, NotFound
from imagefarm.ids import is_id
from imagefarm.store.audit import append
from imagefarm.store.engine import db_now
from imagefarm.store.models import Webhook, WebhookDelivery
from imagefarm.text import Text
from scheduler.assets.safe_fetch import MAX_URL_CHARS, FetchFailed
from scheduler.delivery import webhooks
from scheduler.delivery.webhooks import Kind

routes = Routes(tag="webhooks")

WebhookDeliveryState = Literal["waiting", "delivered", "dead"]


class WebhookBody(Body):
    """Where to send what. `subject` is a job or a batch; without it all of the tenant's are told of."""

    url: Annotated[Text, Field(min_length=8, max_length=MAX_URL_CHARS)]
    kinds: Annotated[list[Kind], Field(min_length=1, max_length=10)]
    subject: Annotated[Text, Field(min_length=1, max_length=40)] | None = None


class WebhookResponse(ResponseModel):
    """A webhook. The secret, by which receivers check signatures, is shown only when it is made."""

    id: str
    url: str
    kinds: list[str]
    subject: str | None
    secret: str | None
    created_at: Time
    disabled_at: Time | None


class WebhookList(ResponseModel):
    """All webhooks, newest first."""

    items: list[WebhookResponse]
    next_cursor: str | None


class WebhookDeliveryResponse(ResponseModel):
    """One message to a webhook. `id` is its `webhook-id` header, the same at every try."""

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
    cursor: Annotated[str, Field(max_length=200)] | None = Field(None, description="`next_cursor` of the page before")


@routes.post("/api/v1/webhooks", scope=Scope.SUBMIT, response=WebhookResponse, status=201, errors=(404,))
def create_webhook(app_context: AppContext, caller: Caller, body: WebhookBody) -> WebhookResponse:
    """Register a webhook.

    Messages follow Standard Webhooks: headers `webhook-id`, `webhook-timestamp` and `webhook-signature`, made with the secret
    of the answer, which is shown this once. A message is tried for about a day; answer 2xx to take it, 410 to get no more.
    """
    if body.subject is not None:
        with app_context.store.read() as session:
            if is_id(body.subject, "batch"):
                visible_batch(session, caller, body.subject)
            else:
                visible_job(session, caller, body.subject)
    try:
        hook = webhooks.create_webhook(
            app_context.store,
            app_context.settings,
            url=body.url,
            kinds=list(dict.fromkeys(body.kinds)),
            subject=body.subject,
            tenant_id=caller.tenant_id,
            by=caller.name,
        )
    except FetchFailed as error:
        raise InvalidRequest([FieldError(field="url", detail=error.detail, remedy="mend the host's name")]) from None
    return _response(hook, secret=hook.secret)


@routes.get("/api/v1/webhooks", scope=Scope.READ, response=WebhookList)
def list_webhooks(app_context: AppContext, caller: Caller) -> WebhookList:
    """List webhooks."""
    statement = select(Webhook).where(Webhook.disabled_at.is_(None)).order_by(Webhook.id.desc()).limit(1000)
    if caller.tenant_filter is not None:
        statement = statement.where(Webhook.tenant_id == caller.tenant_filter)
    with app_context.store.read() as session:
        return WebhookList(items=[_response(hook) for hook in session.scalars(statement)], next_cursor=None)


@routes.delete("/api/v1/webhooks/{webhook_id}", scope=Scope.SUBMIT, status=204)
def delete_webhook(app_context: AppContext, caller: Caller, webhook_id: str) -> Reply:
    """Remove a webhook.

    What waits for it is not sent any more.
    """
    with app_context.store.write() as session:
        hook = _visible(session, caller, webhook_id)
        if hook.disabled_at is None:
            hook.disabled_at = session.scalar(select(db_now()))
            append(session, "webhook.removed", hook.id, hook.tenant_id, {"by": caller.name})
    return Reply(None, 204)


@routes.get("/api/v1/webhooks/{webhook_id}/deliveries", scope=Scope.READ, response=WebhookDeliveryList)
def list_deliveries(app_context: AppContext, caller: Caller, webhook_id: str, query: WebhookDeliveryQuery) -> Reply:
    """List what was, or will be, sent to a webhook."""
    wanted = f"deliveries {webhook_id} {query.state}"
    before = read_cursor(query.cursor, wanted, form=partial(is_id, prefix="msg"))
    statement = (
        select(WebhookDelivery)
        .where(WebhookDelivery.webhook_id == webhook_id)
        .order_by(WebhookDelivery.id.desc())
        .limit(query.limit + 1)
    )
    if query.state is not None:
        statement = statement.where(WebhookDelivery.state == query.state)
    if before is not None:
        statement = statement.where(WebhookDelivery.id < before)
    with app_context.store.read() as session:
        _visible(session, caller, webhook_id)
        found = session.scalars(statement).all()
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
    with app_context.store.write() as session:
        _visible(session, caller, webhook_id)
        delivery = session.get(WebhookDelivery, delivery_id)
        if delivery is None or delivery.webhook_id != webhook_id:
            raise NotFound(f"no delivery {delivery_id[:60]!r}")
        webhooks.replay(session, delivery)
        return _delivery(delivery)


def _visible(session: Session, caller: Caller, webhook_id: str) -> Webhook:
    hook = session.get(Webhook, webhook_id)
    if hook is None or not caller.can_see(hook.tenant_id):
        raise NotFound(f"no webhook {webhook_id[:60]!r}")
    return hook


def _response(hook: Webhook, secret: str | None = None) -> WebhookResponse:
    return WebhookResponse(
        id=hook.id,
        url=hook.url,
        kinds=hook.kinds,
        subject=hook.subject,
        secret=secret,
        created_at=hook.created_at,
        disabled_at=hook.disabled_at,
    )


def _delivery(delivery: WebhookDelivery) -> WebhookDeliveryResponse:
    return WebhookDeliveryResponse.model_validate(
        {name: getattr(delivery, name) for name in WebhookDeliveryResponse.model_fields}
    )
