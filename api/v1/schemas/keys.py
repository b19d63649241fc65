"""API keys as JSON, and a key made from a body."""

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


def make_key(app_context: AppContext, caller: Caller, body: KeyRequest) -> NewKey:
    """Make the key that a body asks for. Raises InvalidRequest."""
    limits = body.limits.model_dump(exclude_none=True)
    return create_key(app_context.store, name=body.name, scopes=body.scopes, tenant=body.tenant, limits=limits, by=caller.name)


def new_key_response(made: NewKey) -> NewKeyResponse:
    """A key just made as JSON, with the key itself."""
    return NewKeyResponse(**asdict(made.info), key=made.key)
