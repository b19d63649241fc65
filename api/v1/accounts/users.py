"""Users who sign in: admins create, list and disable them and set their passwords."""

from __future__ import annotations

from dataclasses import asdict

from api.http.context import AppContext
from api.http.routes import Routes
from api.http.schemas import ResponseModel, Time
from api.v1.schemas.users import PasswordRequest, Role, UserRequest, make_user
from imagefarm.auth import Caller, Scope
from imagefarm.users import UserInfo, disable_user, list_users, set_password

routes = Routes(tag="users")


class UserResponse(ResponseModel):
    """A user, without the password."""

    id: str
    name: str
    role: Role
    tenant_id: str
    tenant: str
    created_at: Time
    disabled_at: Time | None
    last_sign_in_at: Time | None


class UserList(ResponseModel):
    """All users, by name."""

    items: list[UserResponse]
    next_cursor: None = None


@routes.get("/api/v1/users", scope=Scope.ADMIN, response=UserList)
def list_people(app_context: AppContext, caller: Caller) -> UserList:
    """List the users."""
    return UserList(items=[_response(info) for info in list_users(app_context.store, tenant_id=caller.tenant_filter)])


@routes.post("/api/v1/users", scope=Scope.ADMIN, response=UserResponse, status=201, errors=(409,))
def create_person(app_context: AppContext, caller: Caller, body: UserRequest) -> UserResponse:
    """Create a user, to sign in to the pages with name and password."""
    return _response(make_user(app_context, caller, body))


@routes.post("/api/v1/users/{user}/password", scope=Scope.ADMIN, response=UserResponse)
def change_password(app_context: AppContext, caller: Caller, user: str, body: PasswordRequest) -> UserResponse:
    """Set a user's password, by name or id.

    The user's browsers are signed out.
    """
    return _response(set_password(app_context.store, user, body.password, within=caller.tenant_filter, by=caller.name))


@routes.post("/api/v1/users/{user}/disable", scope=Scope.ADMIN, response=UserResponse)
def disable_person(app_context: AppContext, caller: Caller, user: str) -> UserResponse:
    """Disable a user, by name or id.

    The user can no longer sign in, and the user's browsers are signed out. Disabling again changes nothing. The name stays taken.
    """
    return _response(disable_user(app_context.store, user, within=caller.tenant_filter, by=caller.name))


def _response(info: UserInfo) -> UserResponse:
    return UserResponse.model_validate(asdict(info))
