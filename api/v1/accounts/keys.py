"""API keys: made, listed and revoked by admins."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from pydantic import AfterValidator, Field

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import Body, ResponseModel, Time
from imagefarm.auth import MAX_GRACE_S, MAX_LIMIT, Caller, KeyInfo, Scope, create_key, list_keys, revoke_key, rotate_key
from imagefarm.text import NotBool, check_text

routes = Routes(tag="keys")


def _stripped(text: str) -> str:
    if text != text.strip() or not text.isprintable():
        raise ValueError("has white space at its ends, or characters that do not print; leave them out")
    return text


Name = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(check_text), AfterValidator(_stripped)]


Number = Annotated[int, Field(ge=0, le=MAX_LIMIT), NotBool]


class KeyLimits(Body):
    """What one key may ask for; null: no more narrowly than its tenant."""

    queued: Number | None = Field(None, description="Jobs that wait at a time")
    running: Number | None = Field(None, description="Jobs that run at a time")
    images_per_day: Number | None = Field(None, description="Pictures asked for on one day (UTC)")
    pixels: Number | None = Field(None, description="Width times height of a picture")
    steps: Number | None = None


class KeyRequest(Body):
    """A key to be made."""

    name: Name = Field(description="What it is for, for those who read the list")
    tenant: Name = Field("default", description="Name of the tenant it belongs to, who is made if new")
    scopes: list[Scope] = Field(default_factory=lambda: [Scope.SUBMIT, Scope.READ], min_length=1, max_length=3)
    limits: KeyLimits = Field(default_factory=KeyLimits, description="Of this key alone, within those of its tenant")


class RotateRequest(Body):
    """How a key is to be replaced."""

    grace_s: Annotated[float, Field(ge=0, le=MAX_GRACE_S, allow_inf_nan=False), NotBool] = Field(
        86400.0, description="Seconds for which the old key holds on"
    )


class KeyResponse(ResponseModel):
    """A key, without its secret."""

    id: str
    name: str
    prefix: str = Field(description="The part of the key that may be shown: if_<prefix>_...")
    tenant_id: str
    tenant: str
    scopes: list[Scope]
    limits: dict[str, int]
    created_at: Time
    expires_at: Time | None = Field(description="When a key that was replaced ceases to hold")
    revoked_at: Time | None
    last_used_at: Time | None


class NewKeyResponse(KeyResponse):
    """A key just made. This is the only time it is shown."""

    key: str


class KeyList(ResponseModel):
    """All keys, newest first."""

    items: list[KeyResponse]
    next_cursor: None = None


@routes.get("/api/v1/keys", scope=Scope.ADMIN, response=KeyList)
def list_api_keys(app_context: AppContext, caller: Caller) -> KeyList:
    """List the keys."""
    return KeyList(items=[_response(info) for info in list_keys(app_context.store)])


@routes.post("/api/v1/keys", scope=Scope.ADMIN, response=NewKeyResponse, status=201)
def create_api_key(app_context: AppContext, caller: Caller, body: KeyRequest) -> NewKeyResponse:
    """Make a key. It is shown this once."""
    limits = body.limits.model_dump(exclude_none=True)
    made = create_key(app_context.store, name=body.name, scopes=body.scopes, tenant=body.tenant, limits=limits, by=caller.name)
    return NewKeyResponse(**asdict(made.info), key=made.key)


@routes.post("/api/v1/keys/{key}/rotate", scope=Scope.ADMIN, response=NewKeyResponse, status=201, errors=(409,))
def rotate_api_key(app_context: AppContext, caller: Caller, key: str, body: RotateRequest) -> NewKeyResponse:
    """Replace a key, by id or prefix.

    The new key has the name, tenant, scopes and limits of the old one, which holds on for `grace_s`. It is shown this once.
    """
    made = rotate_key(app_context.store, key, grace_s=body.grace_s, by=caller.name)
    return NewKeyResponse(**asdict(made.info), key=made.key)


@routes.delete("/api/v1/keys/{key}", scope=Scope.ADMIN, response=KeyResponse)
def revoke_api_key(app_context: AppContext, caller: Caller, key: str) -> KeyResponse:
    """Revoke a key, by id or prefix. Revoking again changes nothing."""
    return _response(revoke_key(app_context.store, key, by=caller.name))


def _response(info: KeyInfo) -> KeyResponse:
    return KeyResponse(**asdict(info))
