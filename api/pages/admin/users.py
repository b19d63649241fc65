"""`/admin/users`: create, list and disable users, set passwords, and set the limits of tenants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Response, redirect, request
from pydantic import ValidationError

from api.http.context import AppContext
from api.http.field_errors import field_errors
from api.pages.registry import Pages
from api.pages.rendering import page
from api.v1.schemas.tenants import TenantChange, TenantResponse, tenant_responses
from api.v1.schemas.users import PasswordRequest, UserRequest, make_user
from imagefarm.auth import LIMITS, Caller, Scope, is_open
from imagefarm.errors import Conflict, FieldError, InvalidRequest
from imagefarm.tenants import count_tenants, limit_tenant
from imagefarm.users import (
    MAX_PASSWORD_CHARS,
    MIN_PASSWORD_CHARS,
    Role,
    UserInfo,
    disable_user,
    list_users,
    set_password,
)

pages = Pages("pages_admin_users")

SHOWN = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class UsersView:
    """The users, the tenants, the form for a new user, and errors.

    The errors belong to the new-user form, to the new password of the user `renewed`, or to the limits `given` for the tenant
    `limited`.
    """

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
        """A tenant's own limits as texts for its form."""
        return tuple((name, str(tenant.limits.get(name, ""))) for name in LIMITS)


@pages.get("/admin/users", scope=Scope.FARM)
def users_page(app_context: AppContext) -> Response:
    """List the users, with the form for a new one."""
    return page("admin/users.html", _view(app_context))


@pages.post("/admin/users", scope=Scope.FARM)
def users_form(app_context: AppContext, caller: Caller) -> Any:
    """Create a user, and return to the list."""
    fields = {name: request.form.get(name, "").strip() for name in ("name", "role", "tenant")}
    try:
        given = {name: value for name, value in fields.items() if value} | {"password": request.form.get("password", "")}
        make_user(app_context, caller, UserRequest.model_validate(given))
    except ValidationError as error:
        return _refused(app_context, field_errors(error, UserRequest, whole="form"), fields)
    except InvalidRequest as error:
        return _refused(app_context, error.errors, fields)
    except Conflict as error:
        return _refused(app_context, [FieldError(field="name", detail=error.detail, remedy="choose another")], fields, status=409)
    return redirect("/admin/users", 303)


@pages.post("/admin/users/<user_id>/password", scope=Scope.FARM)
def password_form(app_context: AppContext, caller: Caller, user_id: str) -> Any:
    """Set a user's password, which signs their browsers out, and return to the list."""
    try:
        body = PasswordRequest.model_validate({"password": request.form.get("password", "")})
        set_password(app_context.store, user_id, body.password, by=caller.name)
    except ValidationError as error:
        return _refused(app_context, field_errors(error, PasswordRequest, whole="form"), renewed=user_id)
    except InvalidRequest as error:
        return _refused(app_context, error.errors, renewed=user_id)
    return redirect("/admin/users", 303)


@pages.post("/admin/users/<user_id>/disable", scope=Scope.FARM)
def disable_form(app_context: AppContext, caller: Caller, user_id: str) -> Any:
    """Disable a user, and return to the list."""
    disable_user(app_context.store, user_id, by=caller.name)
    return redirect("/admin/users", 303)


@pages.post("/admin/tenants/<tenant_id>/limits", scope=Scope.FARM)
def limits_form(app_context: AppContext, caller: Caller, tenant_id: str) -> Any:
    """Set a tenant's limits, and return to the list. An empty field removes the tenant's own limit."""
    given = {name: request.form[name].strip() for name in LIMITS if name in request.form}
    try:
        body = TenantChange.model_validate({"limits": {name: value or None for name, value in given.items()}})
        limit_tenant(app_context.store, tenant_id, body.limits.model_dump(exclude_unset=True), by=caller.name)
    except ValidationError as error:
        return _refused(app_context, field_errors(error, TenantChange, whole="form"), limited=tenant_id, given=given)
    return redirect(f"/admin/users#{tenant_id}", 303)


def _refused(
    app_context: AppContext, errors: list[FieldError], fields: dict[str, str] | None = None, *, status: int = 422, **of: Any
) -> Response:
    return page("admin/users.html", _view(app_context, fields, errors=tuple(errors), **of), status)


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
        shown = tenant_responses(session, app_context.settings)
        known = count_tenants(session)
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
