"""`/admin/keys`: API keys made (and shown once), listed, replaced, revoked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, redirect, request
from pydantic import ValidationError

from api.http.auth import authenticate, require
from api.http.context import AppContext, current_app_context
from api.http.field_errors import field_errors
from api.pages.rendering import page
from api.v1.accounts import keys as api_keys
from imagefarm.auth import LIMITS, Caller, KeyInfo, Scope, is_open, list_keys
from imagefarm.errors import FieldError, InvalidRequest

pages = Blueprint("pages_admin_keys", __name__)

SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysView:
    """The keys and the form. `made` is a key just made: shown this once."""

    keys: tuple[KeyInfo, ...]
    scopes: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    chosen: tuple[str, ...]
    limits: tuple[tuple[str, str], ...]
    errors: tuple[FieldError, ...]
    made: api_keys.NewKeyResponse | None
    is_open: bool


@pages.get("/admin/keys")
def keys_page() -> Response:
    """List the keys, with the form for a new one."""
    app_context = current_app_context()
    require(authenticate(app_context), Scope.ADMIN)
    return page("admin_keys.html", _view(app_context))


@pages.post("/admin/keys")
def keys_form() -> Response:
    """Make a key and show it, this once."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.ADMIN)
    fields: dict[str, str] = {name: request.form.get(name, "").strip() for name in ("name", "tenant")}
    chosen = tuple(request.form.getlist("scope"))
    limits = {name: request.form.get(name, "").strip() for name in LIMITS}
    try:
        given: dict[str, Any] = {name: value for name, value in fields.items() if value} | {"scopes": list(chosen)}
        given["limits"] = {name: value for name, value in limits.items() if value}
        made = api_keys.create_api_key(app_context, caller, api_keys.KeyRequest.model_validate(given))
    except ValidationError as error:
        wrong = field_errors(error, api_keys.KeyRequest, whole="form")
        return page("admin_keys.html", _view(app_context, fields, chosen=chosen, limits=limits, errors=tuple(wrong)), 422)
    except InvalidRequest as error:
        return page("admin_keys.html", _view(app_context, fields, chosen=chosen, limits=limits, errors=tuple(error.errors)), 422)
    return _shown_once(app_context, made)


@pages.post("/admin/keys/<key_id>/rotate")
def rotate_form(key_id: str) -> Response:
    """Replace a key, and show the new one, this once; the old one holds on for a day."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.ADMIN)
    return _shown_once(app_context, api_keys.rotate_api_key(app_context, caller, key_id, api_keys.RotateRequest()))


@pages.post("/admin/keys/<key_id>/revoke")
def revoke_form(key_id: str) -> Any:
    """Revoke a key, and go back to the list."""
    app_context = current_app_context()
    caller: Caller = authenticate(app_context)
    require(caller, Scope.ADMIN)
    api_keys.revoke_api_key(app_context, caller, key_id)
    return redirect("/admin/keys", 303)


def _shown_once(app_context: AppContext, made: api_keys.NewKeyResponse) -> Response:
    response = page("admin_keys.html", _view(app_context, made=made), 201)
    response.headers["Cache-Control"] = "no-store"
    return response


def _view(
    app_context: AppContext,
    fields: dict[str, str] | None = None,
    *,
    chosen: tuple[str, ...] = (Scope.SUBMIT, Scope.READ),
    limits: dict[str, str] | None = None,
    errors: tuple[FieldError, ...] = (),
    made: api_keys.NewKeyResponse | None = None,
) -> KeysView:
    return KeysView(
        keys=tuple(list_keys(app_context.store)[:SHOWN]),
        scopes=tuple(map(str, Scope)),
        fields=tuple((fields or {"name": "", "tenant": ""}).items()),
        chosen=chosen,
        limits=tuple((limits or dict.fromkeys(LIMITS, "")).items()),
        errors=errors,
        made=made,
        is_open=is_open(app_context.settings),
    )
