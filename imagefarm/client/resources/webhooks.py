"""`farm.webhooks`: where messages are sent, and the deliveries of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from imagefarm.client.pages import Pages
from imagefarm.client.request import API, Request, Steps, ask, ask_all, get, given, post
from imagefarm.client.resource import Listing, Operation, Resource, TransportT
from imagefarm.client.schemas import Webhook, WebhookDelivery, WebhookDeliveryList


def create_webhook(url: str, kinds: Sequence[str], *, subject: str | None = None) -> Steps[Webhook]:
    """Have messages of these kinds (`job.succeeded`, `batch.done` ...) sent to a URL; of all, or of one job or batch.

    Keep the response's `secret`: it checks the signatures, and is shown once.
    """
    return ask(Webhook, post("/webhooks", {"url": url, "kinds": [*kinds], "subject": subject}))


def list_webhooks() -> Steps[Sequence[Webhook]]:
    """List the webhooks, newest first."""
    return ask_all(Webhook, get("/webhooks"))


def remove_webhook(webhook_id: str) -> Steps[None]:
    """Remove a webhook and stop its messages."""
    yield Request(method="DELETE", path=f"{API}/webhooks/{webhook_id}")


def list_deliveries(webhook_id: str, *, state: Literal["waiting", "delivered", "dead"] | None = None) -> Pages[WebhookDelivery]:
    """List the messages of a webhook, newest first; with `state`, those in it."""
    return Pages(path=f"/webhooks/{webhook_id}/deliveries", kind=WebhookDeliveryList, query=given({"state": state}))


def replay_delivery(webhook_id: str, delivery_id: str) -> Steps[WebhookDelivery]:
    """Send a message again."""
    return ask(WebhookDelivery, post(f"/webhooks/{webhook_id}/deliveries/{delivery_id}/replay"))


class Webhooks(Resource[TransportT]):
    """`farm.webhooks`."""

    create = Operation(create_webhook)
    list = Operation(list_webhooks)
    remove = Operation(remove_webhook)
    deliveries = Listing(list_deliveries)
    replay = Operation(replay_delivery)
