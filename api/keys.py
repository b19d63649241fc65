"""API keys: made, listed and revoked by admins."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from pydantic import AfterValidator, Field

from api.context import Farm
from api.routes import Routes
from api.shapes import Answer, Body, Time
from imagefarm.auth import Caller, KeyInfo, Scope, create_key, list_keys, revoke_key
from imagefarm.text import check_text

routes = Routes(tag="keys")


def _stripped(text: str) -> str:
    if text != text.strip() or not text.isprintable():
        raise ValueError("has white space at its ends, or characters that do not print; leave them out")
    return text


Name = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(check_text), AfterValidator(_stripped)]


class KeyRequest(Body):
    """A key to be made."""

    name: Name = Field(description="What it is for, for those who read the list")
    tenant: Name = Field("default", description="Name of the tenant it belongs to, who is made if new")
    scopes: list[Scope] = Field(default_factory=lambda: [Scope.SUBMIT, Scope.READ], min_length=1, max_length=3)


class KeyAnswer(Answer):
    """A key, without its secret."""

    id: str
    name: str
    prefix: str = Field(description="The part of the key that may be shown: if_<prefix>_...")
    tenant_id: str
    tenant: str
    scopes: list[Scope]
    created_at: Time
    revoked_at: Time | None
    last_used_at: Time | None


class NewKeyAnswer(KeyAnswer):
    """A key just made. This is the only time it is shown."""

    key: str


class KeyList(Answer):
    """All keys, newest first."""

    items: list[KeyAnswer]
    next_cursor: None = None


@routes.get("/api/v1/keys", scope=Scope.ADMIN, answer=KeyList)
def list_api_keys(farm: Farm, caller: Caller) -> KeyList:
    """List the keys."""
    return KeyList(items=[_answer(info) for info in list_keys(farm.store)])


@routes.post("/api/v1/keys", scope=Scope.ADMIN, answer=NewKeyAnswer, status=201)
def create_api_key(farm: Farm, caller: Caller, body: KeyRequest) -> NewKeyAnswer:
    """Make a key. It is shown this once."""
    made = create_key(farm.store, name=body.name, scopes=body.scopes, tenant=body.tenant, by=caller.name)
    return NewKeyAnswer(**asdict(made.info), key=made.key)


@routes.delete("/api/v1/keys/{key}", scope=Scope.ADMIN, answer=KeyAnswer)
def revoke_api_key(farm: Farm, caller: Caller, key: str) -> KeyAnswer:
    """Revoke a key, by id or prefix. Revoking again changes nothing."""
    return _answer(revoke_key(farm.store, key, by=caller.name))


def _answer(info: KeyInfo) -> KeyAnswer:
    return KeyAnswer(**asdict(info))
