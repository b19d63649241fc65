"""API keys as JSON, and the creation of a key from a request body."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from pydantic import AfterValidator, Field

from api.http.auth import require
from api.http.context import AppContext
from api.http.schemas import Body, ResponseModel, Time
from imagefarm.auth import (
    DEFAULT_SCOPES,
    MAX_LIFETIME_S,
    MAX_LIMIT,
    MIN_LIFETIME_S,
    Caller,
    NewKey,
    Scope,
    create_key,
    tenant_of_grant,
)
from imagefarm.text import NotBool, check_text


def _stripped(text: str) -> str:
    if text != text.strip() or not text.isprintable():
        raise ValueError("has white space at its ends, or unprintable characters; remove them")
    return text


Name = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(check_text), AfterValidator(_stripped)]


Number = Annotated[int, Field(ge=0, le=MAX_LIMIT), NotBool]


class KeyLimits(Body):
    """The limits of one key; null: only the tenant's limit applies."""

    queued: Number | None = Field(None, description="Waiting jobs at a time")
    running: Number | None = Field(None, description="Running jobs at a time")
    images_per_day: Number | None = Field(None, description="Images asked for per day (UTC)")
    pixels: Number | None = Field(None, description="Width times height of an image")
    steps: Number | None = None


class KeyRequest(Body):
    """A new key."""

    name: Name = Field(description="The key's purpose, shown in the list")
    tenant: Name | None = Field(
        None, description="Name of the key's tenant, which is created if it does not exist; the default is the caller's own"
    )
    scopes: list[Scope] = Field(
        default_factory=lambda: list(DEFAULT_SCOPES),
        min_length=1,
        max_length=len(Scope),
        description="`admin` manages keys and users of its tenant; `farm` crosses tenants, and only a caller with it grants it",
    )
    limits: KeyLimits = Field(default_factory=KeyLimits, description="Limits of this key, within those of its tenant")
    expires_in: Annotated[float, Field(ge=MIN_LIFETIME_S, le=MAX_LIFETIME_S, allow_inf_nan=False), NotBool] | None = Field(
        None, description="Seconds after which the key expires; null: it does not"
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
    expires_at: Time | None = Field(description="When a replaced key expires")
    revoked_at: Time | None
    last_used_at: Time | None
    lifetime_s: float | None = Field(description="The lifetime that the key was made with; a replacement has the same")


class NewKeyResponse(KeyResponse):
    """A new key with its secret. No other response contains it."""

    key: str


def make_key(app_context: AppContext, caller: Caller, body: KeyRequest) -> NewKey:
    """Create the key of a request body. Raises InvalidRequest."""
    limits = body.limits.model_dump(exclude_none=True)
    if Scope.FARM in body.scopes:
        require(caller, Scope.FARM)
    return create_key(
        app_context.store,
        name=body.name,
        scopes=body.scopes,
        tenant=tenant_of_grant(app_context.store, caller, body.tenant),
        limits=limits,
        expires_in_s=body.expires_in,
        by=caller.name,
    )


def new_key_response(made: NewKey) -> NewKeyResponse:
    """Convert a new key to JSON, with its secret."""
    return NewKeyResponse(**asdict(made.info), key=made.key)
