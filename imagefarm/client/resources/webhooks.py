"""`farm.webhooks`: the URLs that messages are sent to, and the messages of each webhook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from imagefarm.client.pages import Pages
from imagefarm.client.request import API, Request, Steps, ask, ask_all, get, given, post
from imagefarm.client.resource import Listing, Operation, Resource, TransportT
from imagefarm.client.schemas import Webhook, WebhookDelivery, WebhookDeliveryList


def create_webhook(url: str, kinds: Sequence[str], *, subject: str | None = None) -> Steps[Webhook]:
    """Have messages of these kinds (`job.succeeded`, `batch.done` ...) sent to a URL, for all jobs and batches or for one.

    Keep the response's `secret`, which is shown once. Use it to verify the signatures.
    """
    return ask(Webhook, post("/webhooks", {"url": url, "kinds": [*kinds], "subject": subject}))


def list_webhooks() -> Steps[Sequence[Webhook]]:
    """List the webhooks, newest first."""
    return ask_all(Webhook, get("/webhooks"))


def remove_webhook(webhook_id: str) -> Steps[None]:
    """Remove a webhook and stop its messages."""
    yield Request(method="DELETE", path=f"{API}/webhooks/{webhook_id}")


def list_deliveries(webhook_id: str, *, state: Literal["waiting", "delivered", "dead"] | None = None) -> Pages[WebhookDelivery]:
    """List the messages of a webhook, newest first; with `state`, only messages in that state."""
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
