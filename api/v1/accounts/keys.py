"""API keys: admins create, list, replace and revoke them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from pydantic import Field

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import Body, ResponseModel
from api.v1.schemas.keys import KeyRequest, KeyResponse, NewKeyResponse, make_key, new_key_response
from imagefarm.auth import MAX_GRACE_S, Caller, KeyInfo, Scope, list_keys, revoke_key, rotate_key
from imagefarm.text import NotBool

routes = Routes(tag="keys")


class RotateRequest(Body):
    """Options of a key replacement."""

    grace_s: Annotated[float, Field(ge=0, le=MAX_GRACE_S, allow_inf_nan=False), NotBool] = Field(
        86400.0, description="Seconds for which the old key stays valid"
    )


class KeyList(ResponseModel):
    """All keys, newest first."""

    items: list[KeyResponse]
    next_cursor: None = None


@routes.get("/api/v1/keys", scope=Scope.ADMIN, response=KeyList)
def list_api_keys(app_context: AppContext, caller: Caller) -> KeyList:
    """List the keys."""
    return KeyList(items=[_response(info) for info in list_keys(app_context.store, tenant_id=caller.tenant_filter)])


@routes.post("/api/v1/keys", scope=Scope.ADMIN, response=NewKeyResponse, status=201)
def create_api_key(app_context: AppContext, caller: Caller, body: KeyRequest) -> NewKeyResponse:
    """Create a key. The response is the only one that contains the key."""
    return new_key_response(make_key(app_context, caller, body))


@routes.post("/api/v1/keys/{key}/rotate", scope=Scope.ADMIN, response=NewKeyResponse, status=201, errors=(409,))
def rotate_api_key(app_context: AppContext, caller: Caller, key: str, body: RotateRequest) -> NewKeyResponse:
    """Replace a key, by id or prefix.

    The new key has the name, tenant, scopes and limits of the old one. The old key stays valid for `grace_s` seconds. The
    response is the only one that contains the new key.
    """
    return new_key_response(rotate_key(app_context.store, key, grace_s=body.grace_s, within=caller.tenant_filter, by=caller.name))


@routes.delete("/api/v1/keys/{key}", scope=Scope.ADMIN, response=KeyResponse)
def revoke_api_key(app_context: AppContext, caller: Caller, key: str) -> KeyResponse:
    """Revoke a key, by id or prefix. Revoking again changes nothing."""
    return _response(revoke_key(app_context.store, key, within=caller.tenant_filter, by=caller.name))


def _response(info: KeyInfo) -> KeyResponse:
    return KeyResponse(**asdict(info))
