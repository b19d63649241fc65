"""The client's calls around jobs and batches: pictures sent in, webhooks, keys, the audit, figures, help with prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast
from urllib.parse import quote

from pydantic import BaseModel

from imagefarm.client.schemas import (
    ApiKey,
    Asset,
    AssetList,
    Chain,
    Event,
    EventList,
    FoundImage,
    ImageList,
    Kind,
    Limits,
    Setting,
    Statistics,
    Suggestion,
    Tenant,
    Uploaded,
    User,
    Webhook,
    WebhookDelivery,
    WebhookDeliveryList,
)
from imagefarm.client.transport import API, Transport

Item_co = TypeVar("Item_co", covariant=True)
UPLOAD_TIMEOUT_S = 600.0
"""A ZIP of thousands of pictures takes the farm some time."""


class Page(Protocol[Item_co]):
    """One page of a list."""

    @property
    def items(self) -> Sequence[Item_co]: ...
    @property
    def next_cursor(self) -> str | None: ...


class AdminClient:
    """Part of `imagefarm.Client`."""

    _transport: Transport

    # pictures sent in

    def upload_zip(self, archive: Path | str) -> Uploaded:
        """Send a ZIP of pictures in; each path in it is a picture's name. Files that are no pictures are told, not stored."""
        headers = {"Content-Type": "application/zip"}
        with Path(archive).open("rb") as file:
            response = self._transport.json(
                "POST", f"{API}/assets", content=file.read(), headers=headers, timeout=UPLOAD_TIMEOUT_S
            )
        return Uploaded.model_validate(response)

    def assets(self, *, name: str | None = None) -> Iterator[Asset]:
        """The pictures that were sent in, newest first; with `name`, those called so."""
        yield from self._pages(f"{API}/assets", AssetList, {"name": name})

    def asset(self, asset_id: str) -> Asset:
        """What is known of a picture that was sent in."""
        return Asset.model_validate(self._transport.json("GET", f"{API}/assets/{asset_id}"))

    def save_asset(self, asset_id: str, path: Path | str) -> Path:
        """Write a picture that was sent in to `path`, whole or not at all."""
        return self._transport.save(f"{API}/assets/{asset_id}/file", Path(path))

    def images(self, **filters: Any) -> Iterator[FoundImage]:
        """The farm's pictures, newest first. Filters are the API's: sha256 (of the file) or pixel_sha256."""
        yield from self._pages(f"{API}/images", ImageList, filters)

    # webhooks

    def create_webhook(self, url: str, kinds: Sequence[str], *, subject: str | None = None) -> Webhook:
        """Have messages of these kinds (`job.succeeded`, `batch.done` ...) sent to a URL; of all, or of one job or batch.

        Keep the answer's `secret`: it checks the signatures, and is shown this once.
        """
        body = {"url": url, "kinds": [*kinds], "subject": subject}
        return Webhook.model_validate(self._transport.json("POST", f"{API}/webhooks", json=body))

    def webhooks(self) -> Sequence[Webhook]:
        """The webhooks, newest first."""
        return [Webhook.model_validate(item) for item in self._items(f"{API}/webhooks")]

    def remove_webhook(self, webhook_id: str) -> None:
        """Send nothing more there."""
        self._transport.send("DELETE", f"{API}/webhooks/{webhook_id}")

    def deliveries(self, webhook_id: str, *, state: str | None = None) -> Iterator[WebhookDelivery]:
        """What was, or will be, sent to a webhook, newest first; with `state`, what is waiting, delivered or dead."""
        yield from self._pages(f"{API}/webhooks/{webhook_id}/deliveries", WebhookDeliveryList, {"state": state})

    def replay_delivery(self, webhook_id: str, delivery_id: str) -> WebhookDelivery:
        """Send a message again."""
        path = f"{API}/webhooks/{webhook_id}/deliveries/{delivery_id}/replay"
        return WebhookDelivery.model_validate(self._transport.json("POST", path))

    # keys, for admins

    def keys(self) -> Sequence[ApiKey]:
        """The API keys, without their secrets."""
        return [ApiKey.model_validate(item) for item in self._items(f"{API}/keys")]

    def create_key(
        self,
        name: str,
        *,
        scopes: Sequence[str] = ("submit", "read"),
        tenant: str = "default",
        limits: Mapping[str, int] | None = None,
    ) -> ApiKey:
        """Make a key. Keep the answer's `key`: it is shown this once."""
        body = {"name": name, "scopes": [*scopes], "tenant": tenant, "limits": {**(limits or {})}}
        return ApiKey.model_validate(self._transport.json("POST", f"{API}/keys", json=body))

    def rotate_key(self, key: str, *, grace_s: float = 86400.0) -> ApiKey:
        """Replace a key (id or prefix) by a new one like it; the old one holds on for `grace_s` seconds."""
        return ApiKey.model_validate(self._transport.json("POST", f"{API}/keys/{key}/rotate", json={"grace_s": grace_s}))

    def revoke_key(self, key: str) -> ApiKey:
        """Make a key (id or prefix) useless from now on."""
        return ApiKey.model_validate(self._transport.json("DELETE", f"{API}/keys/{key}"))

    # people who sign in, for admins

    def users(self) -> Sequence[User]:
        """The people who sign in, by name."""
        return [User.model_validate(item) for item in self._items(f"{API}/users")]

    def create_user(self, name: str, password: str, *, role: str = "member", tenant: str = "default") -> User:
        """Make a person who signs in: a viewer (read), a member (read, submit) or an admin."""
        body = {"name": name, "password": password, "role": role, "tenant": tenant}
        return User.model_validate(self._transport.json("POST", f"{API}/users", json=body))

    def set_password(self, user: str, password: str) -> User:
        """Give a person (name or id) a new password; their browsers are signed out."""
        return User.model_validate(self._transport.json("POST", f"{API}/users/{user}/password", json={"password": password}))

    def disable_user(self, user: str) -> User:
        """Let a person (name or id) sign in no more; their browsers are signed out."""
        return User.model_validate(self._transport.json("POST", f"{API}/users/{user}/disable"))

    # audit and figures, for admins

    def settings(self) -> Sequence[Setting]:
        """The limits and settings in force, and where each came from."""
        return [Setting.model_validate(item) for item in self._items(f"{API}/settings")]

    def audit(self, *, subject: str | None = None, kind: str | None = None, tenant: str | None = None) -> Iterator[Event]:
        """The audit, newest first: of one job, picture, worker and so on; of kinds that begin so; of a tenant by id."""
        yield from self._pages(f"{API}/events", EventList, {"subject": subject, "kind": kind, "tenant": tenant})

    def verify_audit(self) -> Chain:
        """Walk the audit's chain and say whether every link holds."""
        return Chain.model_validate(self._transport.json("GET", f"{API}/audit/verify"))

    def statistics(self, period: str = "hour") -> Statistics:
        """What the farm did over an hour, a day or a week."""
        return Statistics.model_validate(self._transport.json("GET", f"{API}/statistics", params={"period": period}))

    def limits(self) -> Limits:
        """What this key and its tenant may ask for, and how much of it is used."""
        return Limits.model_validate(self._transport.json("GET", f"{API}/limits"))

    def tenants(self) -> Sequence[Tenant]:
        """The tenants, their queues and what they asked for today."""
        return [Tenant.model_validate(item) for item in self._items(f"{API}/tenants")]

    def limit_tenant(self, tenant: str, limits: Mapping[str, int | None]) -> Tenant:
        """Set limits of a tenant (name or id): queued, running, images_per_day, pixels, steps.

        None removes a limit; those not given stay as they are.
        """
        path = f"{API}/tenants/{quote(tenant, safe='')}"
        return Tenant.model_validate(self._transport.json("PATCH", path, json={"limits": {**limits}}))

    # help with prompts

    def enhance(self, prompt: str, *, kind: str | None = None, variant: int = 0) -> Suggestion:
        """What could be added to a prompt for product photography; nothing is submitted."""
        body = {"prompt": prompt, "kind": kind, "variant": variant}
        return Suggestion.model_validate(self._transport.json("POST", f"{API}/prompts/enhance", json=body))

    def kinds(self, *, model: str | None = None) -> Sequence[Kind]:
        """Kinds of pictures, and what suits each on a model."""
        return [Kind.model_validate(item) for item in self._items(f"{API}/prompts/kinds", model=model)]

    def _items(self, path: str, **query: str | None) -> Sequence[dict[str, Any]]:
        params = {name: value for name, value in query.items() if value is not None}
        items: Sequence[dict[str, Any]] = self._transport.json("GET", path, params=params)["items"]
        return items

    def _pages(self, path: str, kind: type[Page[Item_co]], filters: Mapping[str, Any]) -> Iterator[Item_co]:
        """Every item of a list, fetched page by page."""
        query = {"limit": 200} | {name: value for name, value in filters.items() if value is not None}
        while True:
            page = cast(
                "Page[Item_co]", cast("type[BaseModel]", kind).model_validate(self._transport.json("GET", path, params=query))
            )
            yield from page.items
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor
