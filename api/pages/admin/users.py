"""`/admin/users`: who may sign in (made, listed, given a new password, let in no more), and the limits of tenants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, redirect, request
from pydantic import ValidationError
from sqlalchemy import func, select

from api.http.auth import authenticate, require
from api.http.context import AppContext, current_app_context
from api.http.field_errors import field_errors
from api.pages.rendering import page
from api.v1.accounts import users as api_users
from api.v1.accounts.tenants import TenantChange, TenantResponse, change_tenant, tenants
from imagefarm.auth import LIMITS, Scope, is_open
from imagefarm.errors import Conflict, FieldError, InvalidRequest
from imagefarm.store.models import Tenant
from imagefarm.users import MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS, Role, UserInfo, list_users

pages = Blueprint("pages_admin_users", __name__)

SHOWN = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class UsersView:
    """The users and the tenants, the form for a new user, and what was wrong: with that form, with the new password of the user
    `renewed`, or with the limits `given` to the tenant `limited`."""

    users: tuple[UserInfo, ...]
    more: int
    roles: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    errors: tuple[FieldError, ...]
    renewed: str
    tenants: tuple[TenantResponse, ...]
    more_tenants: int
    limited: str
    given: tuple[tuple[str, str], ...]
    farms: tuple[tuple[str, int], ...]
    is_open: bool
    shortest: int = MIN_PASSWORD_CHARS
    longest: int = MAX_PASSWORD_CHARS

    @staticmethod
    def limits_of(tenant: TenantResponse) -> tuple[tuple[str, str], ...]:
        """A tenant's own limits, as its form has them."""
        return tuple((name, str(tenant.limits.get(name, ""))) for name in LIMITS)


@pages.get("/admin/users")
def users_page() -> Response:
    """List the users, with the form for a new one."""
    app_context = current_app_context()
    require(authenticate(app_context), Scope.ADMIN)
    return page("admin_users.html", _view(app_context))


@pages.post("/admin/users")
def users_form() -> Any:
    """Make a user, and go back to the list."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.ADMIN)
    fields = {name: request.form.get(name, "").strip() for name in ("name", "role", "tenant")}
    try:
        given = {name: value for name, value in fields.items() if value} | {"password": request.form.get("password", "")}
        api_users.create_person(app_context, caller, api_users.UserRequest.model_validate(given))
    except ValidationError as error:
        return _refused(app_context, field_errors(error, api_users.UserRequest, whole="form"), fields)
    except InvalidRequest as error:
        return _refused(app_context, error.errors, fields)
    except Conflict as error:
        return _refused(app_context, [FieldError(field="name", detail=error.detail, remedy="choose another")], fields, status=409)
    return redirect("/admin/users", 303)


@pages.post("/admin/users/<user_id>/password")
def password_form(user_id: str) -> Any:
    """Give a user a new password, which signs their browsers out, and go back to the list."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.ADMIN)
    try:
        body = api_users.PasswordRequest.model_validate({"password": request.form.get("password", "")})
        api_users.change_password(app_context, caller, user_id, body)
    except ValidationError as error:
        return _refused(app_context, field_errors(error, api_users.PasswordRequest, whole="form"), renewed=user_id)
    except InvalidRequest as error:
        return _refused(app_context, error.errors, renewed=user_id)
    return redirect("/admin/users", 303)


@pages.post("/admin/users/<user_id>/disable")
def disable_form(user_id: str) -> Any:
    """Let a user sign in no more, and go back to the list."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.ADMIN)
    api_users.disable_person(app_context, caller, user_id)
    return redirect("/admin/users", 303)


@pages.post("/admin/tenants/<tenant_id>/limits")
def limits_form(tenant_id: str) -> Any:
    """Set the limits of a tenant, an empty field removing its own, and go back to the list."""
    app_context = current_app_context()
    caller = authenticate(app_context)
    require(caller, Scope.ADMIN)
    given = {name: request.form[name].strip() for name in LIMITS if name in request.form}
    try:
        body = TenantChange.model_validate({"limits": {name: value or None for name, value in given.items()}})
        change_tenant(app_context, caller, tenant_id, body)
    except ValidationError as error:
        return _refused(app_context, field_errors(error, TenantChange, whole="form"), limited=tenant_id, given=given)
    return redirect(f"/admin/users#{tenant_id}", 303)


def _refused(
    app_context: AppContext, errors: list[FieldError], fields: dict[str, str] | None = None, *, status: int = 422, **of: Any
) -> Response:
    return page("admin_users.html", _view(app_context, fields, errors=tuple(errors), **of), status)


def _view(
    app_context: AppContext,
    fields: dict[str, str] | None = None,
    *,
    errors: tuple[FieldError, ...] = (),
    renewed: str = "",
    limited: str = "",
    given: dict[str, str] | None = None,
) -> UsersView:
    users = list_users(app_context.store)
    with app_context.store.read() as session:
        shown = tenants(session, app_context)
        known = session.scalar(select(func.count()).select_from(Tenant)) or 0
    return UsersView(
        users=tuple(users[:SHOWN]),
        more=max(0, len(users) - SHOWN),
        roles=tuple(map(str, Role)),
        fields=tuple((fields or {"name": "", "role": Role.MEMBER, "tenant": ""}).items()),
        errors=errors,
        renewed=renewed,
        tenants=tuple(shown),
        more_tenants=known - len(shown),
        limited=limited,
        given=tuple((name, (given or {}).get(name, "")) for name in LIMITS),
        farms=(("queued", app_context.settings.max_queued_per_tenant), ("running", app_context.settings.max_running_per_tenant)),
        is_open=is_open(app_context.settings),
    )
