"""`farm.admin`: keys, users, tenants, settings and the audit.

Keys, users and events of the caller's own tenant need the scope admin; everything else needs farm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from imagefarm.client.pages import Pages
from imagefarm.client.request import API, Request, Steps, ask, ask_all, get, given, post, segment
from imagefarm.client.resource import Listing, Operation, Resource, TransportT
from imagefarm.client.schemas import ApiKey, Chain, Event, EventList, Setting, Tenant, User


def create_key(
    name: str,
    *,
    scopes: Sequence[str] = ("submit", "read"),
    tenant: str | None = None,
    limits: Mapping[str, int] | None = None,
    expires_in: float | None = None,
) -> Steps[ApiKey]:
    """Create a key. Keep the response's `key`: it is shown once.

    Without `tenant` it belongs to the caller's own. `expires_in` is in seconds. The scope `admin` manages the tenant's keys and
    users; `farm` crosses tenants.
    """
    body = {"name": name, "scopes": [*scopes], "tenant": tenant, "limits": {**(limits or {})}, "expires_in": expires_in}
    return ask(ApiKey, post("/keys", body))


def list_keys() -> Steps[Sequence[ApiKey]]:
    """List the API keys, without their secrets."""
    return ask_all(ApiKey, get("/keys"))


def rotate_key(key: str, *, grace_s: float = 86400.0) -> Steps[ApiKey]:
    """Replace a key (id or prefix) by a new one with equal scopes and limits. The old key works for `grace_s` seconds more."""
    return ask(ApiKey, post(f"/keys/{key}/rotate", {"grace_s": grace_s}))


def revoke_key(key: str) -> Steps[ApiKey]:
    """Revoke a key (id or prefix) at once."""
    return ask(ApiKey, Request(method="DELETE", path=f"{API}/keys/{key}"))


class Keys(Resource[TransportT]):
    """`farm.admin.keys`."""

    create = Operation(create_key)
    list = Operation(list_keys)
    rotate = Operation(rotate_key)
    revoke = Operation(revoke_key)


def create_user(
    name: str, password: str, *, role: Literal["viewer", "member", "admin", "operator"] = "member", tenant: str | None = None
) -> Steps[User]:
    """Create a user who signs in: a viewer (read), a member (read, submit), an admin of the tenant or the farm's operator."""
    return ask(User, post("/users", {"name": name, "password": password, "role": role, "tenant": tenant}))


def list_users() -> Steps[Sequence[User]]:
    """List the users, by name."""
    return ask_all(User, get("/users"))


def set_password(user: str, password: str) -> Steps[User]:
    """Set a user's password (name or id); the user's browsers are signed out."""
    return ask(User, post(f"/users/{user}/password", {"password": password}))


def disable_user(user: str) -> Steps[User]:
    """Disable a user (name or id); the user's browsers are signed out."""
    return ask(User, post(f"/users/{user}/disable"))


class Users(Resource[TransportT]):
    """`farm.admin.users`."""

    create = Operation(create_user)
    list = Operation(list_users)
    set_password = Operation(set_password)
    disable = Operation(disable_user)


def list_tenants() -> Steps[Sequence[Tenant]]:
    """List the tenants, their queues and what they submitted today."""
    return ask_all(Tenant, get("/tenants"))


def limit_tenant(tenant: str, limits: Mapping[str, int | None]) -> Steps[Tenant]:
    """Set limits of a tenant (name or id): queued, running, images_per_day, pixels, steps.

    None removes a limit; limits that are not given stay as they are.
    """
    return ask(Tenant, replace(post(f"/tenants/{segment(tenant)}", {"limits": {**limits}}), method="PATCH"))


class Tenants(Resource[TransportT]):
    """`farm.admin.tenants`."""

    list = Operation(list_tenants)
    limit = Operation(limit_tenant)


def list_events(*, subject: str | None = None, kind: str | None = None, tenant: str | None = None) -> Pages[Event]:
    """List the audit's events, newest first.

    `subject` is the id of a job, image, worker and so on, `kind` the beginning of the event's kind, `tenant` a tenant's id.
    """
    return Pages(path="/events", kind=EventList, query=given({"subject": subject, "kind": kind, "tenant": tenant}))


def verify_audit() -> Steps[Chain]:
    """Verify every link of the audit's hash chain."""
    return ask(Chain, get("/audit/verify"))


class Audit(Resource[TransportT]):
    """`farm.admin.audit`."""

    list = Listing(list_events)
    verify = Operation(verify_audit)


def list_settings() -> Steps[Sequence[Setting]]:
    """List the limits and settings in force, and their origins."""
    return ask_all(Setting, get("/settings"))


class Admin(Resource[TransportT]):
    """`farm.admin`."""

    settings = Operation(list_settings)

    def __init__(self, transport: TransportT) -> None:
        super().__init__(transport)
        self.keys = Keys(transport)
        self.users = Users(transport)
        self.tenants = Tenants(transport)
        self.audit = Audit(transport)
