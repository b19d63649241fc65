"""API keys as JSON, and the creation of a key from a request body."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from pydantic import AfterValidator, Field

from api.http.context import AppContext
from api.http.schemas import Body, ResponseModel, Time
from imagefarm.auth import MAX_LIMIT, Caller, NewKey, Scope, create_key
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
    tenant: Name = Field("default", description="Name of the key's tenant, which is created if it does not exist")
    scopes: list[Scope] = Field(default_factory=lambda: [Scope.SUBMIT, Scope.READ], min_length=1, max_length=3)
    limits: KeyLimits = Field(default_factory=KeyLimits, description="Limits of this key, within those of its tenant")


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


class NewKeyResponse(KeyResponse):
    """A new key with its secret. No other response contains it."""

    key: str


def make_key(app_context: AppContext, caller: Caller, body: KeyRequest) -> NewKey:
    """Create the key of a request body. Raises InvalidRequest."""
    limits = body.limits.model_dump(exclude_none=True)
    return create_key(app_context.store, name=body.name, scopes=body.scopes, tenant=body.tenant, limits=limits, by=caller.name)


def new_key_response(made: NewKey) -> NewKeyResponse:
    """Convert a new key to JSON, with its secret."""
    return NewKeyResponse(**asdict(made.info), key=made.key)
