"""`/admin/keys`: create an API key (shown once), list, replace and revoke keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Response, redirect, request
from pydantic import ValidationError

from api.http.context import AppContext
from api.http.field_errors import field_errors
from api.pages.labels import LIFETIMES
from api.pages.registry import Pages
from api.pages.rendering import page
from api.v1.schemas.keys import KeyRequest, NewKeyResponse, make_key, new_key_response
from imagefarm.auth import LIMITS, Caller, KeyInfo, NewKey, Scope, is_open, list_keys, revoke_key, rotate_key
from imagefarm.errors import FieldError, InvalidRequest

pages = Pages("pages_admin_keys")

SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysView:
    """The keys and the form. `made` is a new key with its secret, which is shown once."""

    keys: tuple[KeyInfo, ...]
    scopes: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    chosen: tuple[str, ...]
    limits: tuple[tuple[str, str], ...]
    errors: tuple[FieldError, ...]
    made: NewKeyResponse | None
    is_open: bool
    lifetimes: tuple[str, ...] = tuple(LIFETIMES)


@pages.get("/admin/keys", scope=Scope.FARM)
def keys_page(app_context: AppContext) -> Response:
    """List the keys, with the form for a new one."""
    return page("admin/keys.html", _view(app_context))


@pages.post("/admin/keys", scope=Scope.FARM)
def keys_form(app_context: AppContext, caller: Caller) -> Response:
    """Create a key and show it once."""
    fields: dict[str, str] = {name: request.form.get(name, "").strip() for name in ("name", "tenant", "expires_in")}
    chosen = tuple(request.form.getlist("scope"))
    limits = {name: request.form.get(name, "").strip() for name in LIMITS}
    try:
        given: dict[str, Any] = {name: value for name, value in fields.items() if value} | {"scopes": list(chosen)}
        given["limits"] = {name: value for name, value in limits.items() if value}
        made = make_key(app_context, caller, KeyRequest.model_validate(given))
    except ValidationError as error:
        wrong = field_errors(error, KeyRequest, whole="form")
        return page("admin/keys.html", _view(app_context, fields, chosen=chosen, limits=limits, errors=tuple(wrong)), 422)
    except InvalidRequest as error:
        return page("admin/keys.html", _view(app_context, fields, chosen=chosen, limits=limits, errors=tuple(error.errors)), 422)
    return _shown_once(app_context, made)


@pages.post("/admin/keys/<key_id>/rotate", scope=Scope.FARM)
def rotate_form(app_context: AppContext, caller: Caller, key_id: str) -> Response:
    """Replace a key and show the new one once. The old one stays valid for a day."""
    return _shown_once(app_context, rotate_key(app_context.store, key_id, by=caller.name))


@pages.post("/admin/keys/<key_id>/revoke", scope=Scope.FARM)
def revoke_form(app_context: AppContext, caller: Caller, key_id: str) -> Any:
    """Revoke a key, and return to the list."""
    revoke_key(app_context.store, key_id, by=caller.name)
    return redirect("/admin/keys", 303)


def _shown_once(app_context: AppContext, made: NewKey) -> Response:
    response = page("admin/keys.html", _view(app_context, made=new_key_response(made)), 201)
    response.headers["Cache-Control"] = "no-store"
    return response


def _view(
    app_context: AppContext,
    fields: dict[str, str] | None = None,
    *,
    chosen: tuple[str, ...] = (Scope.SUBMIT, Scope.READ),
    limits: dict[str, str] | None = None,
    errors: tuple[FieldError, ...] = (),
    made: NewKeyResponse | None = None,
) -> KeysView:
    return KeysView(
        keys=tuple(list_keys(app_context.store)[:SHOWN]),
        scopes=tuple(map(str, Scope)),
        fields=tuple((fields or {"name": "", "tenant": "", "expires_in": ""}).items()),
        chosen=chosen,
        limits=tuple((limits or dict.fromkeys(LIMITS, "")).items()),
        errors=errors,
        made=made,
        is_open=is_open(app_context.settings),
    )
