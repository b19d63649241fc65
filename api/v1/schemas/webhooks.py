"""Webhooks as JSON."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from api.http.context import AppContext
from api.http.schemas import Body, ResponseModel, Time
from imagefarm.auth import Caller
from imagefarm.errors import FieldError, InvalidRequest
from imagefarm.ids import is_id
from imagefarm.store.batches import visible_batch
from imagefarm.store.jobs import visible_job
from imagefarm.store.models import Webhook
from imagefarm.text import Text
from scheduler.assets.safe_fetch import MAX_URL_CHARS, FetchFailed
from scheduler.delivery import webhooks
from scheduler.delivery.webhooks import Kind


class WebhookBody(Body):
    """A webhook's URL and events. `subject` is a job or a batch; without it the webhook covers all of the tenant."""

    url: Annotated[Text, Field(min_length=8, max_length=MAX_URL_CHARS)]
    kinds: Annotated[list[Kind], Field(min_length=1, max_length=10)]
    subject: Annotated[Text, Field(min_length=1, max_length=40)] | None = None


class WebhookResponse(ResponseModel):
    """A webhook. The secret, with which receivers check signatures, is shown only when the webhook is created."""

    id: str
    url: str
    kinds: list[str]
    subject: str | None
    secret: str | None
    created_at: Time
    disabled_at: Time | None


def register_webhook(app_context: AppContext, caller: Caller, body: WebhookBody) -> Webhook:
    """Register a webhook. Raises NotFound for a subject that the caller may not see, InvalidRequest."""
    if body.subject is not None:
        find = visible_batch if is_id(body.subject, "batch") else visible_job
        with app_context.store.read() as session:
            find(session, body.subject, caller.tenant_filter)
    try:
        return webhooks.create_webhook(
            app_context.store,
            app_context.settings,
            url=body.url,
            kinds=list(dict.fromkeys(body.kinds)),
            subject=body.subject,
            tenant_id=caller.tenant_id,
            by=caller.name,
        )
    except FetchFailed as error:
        raise InvalidRequest([FieldError(field="url", detail=error.detail, remedy="correct the host name")]) from None


def webhook_response(hook: Webhook, *, with_secret: bool = False) -> WebhookResponse:
    """Convert a webhook to JSON. The secret is included only when the webhook is created."""
    return WebhookResponse(
        id=hook.id,
        url=hook.url,
        kinds=hook.kinds,
        subject=hook.subject,
        secret=hook.secret if with_secret else None,
        created_at=hook.created_at,
        disabled_at=hook.disabled_at,
    )
