"""Request bodies of users who sign in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from api.http.auth import require
from api.http.context import AppContext
from api.http.schemas import Body
from api.v1.schemas.keys import Name
from imagefarm.auth import Caller, Scope, tenant_of_grant
from imagefarm.text import check_text
from imagefarm.users import MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS, UserInfo, create_user
from imagefarm.users import Role as UserRole

Role = Literal["viewer", "member", "admin", "operator"]
Password = Annotated[
    str,
    Field(
        min_length=MIN_PASSWORD_CHARS, max_length=MAX_PASSWORD_CHARS, json_schema_extra={"format": "password", "writeOnly": True}
    ),
    AfterValidator(check_text),
]


class UserRequest(Body):
    """A new user."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")] = Field(
        description="The sign-in name; upper and lower case are equal"
    )
    password: Password
    role: Role = Field(
        "member",
        description="viewer (read), member (read, submit), admin (also manages the tenant's keys and users) or operator (all, of "
        "every tenant; only a caller with the scope farm grants it)",
    )
    tenant: Name | None = Field(
        None, description="Name of the user's tenant, which is created if it does not exist; the default is the caller's own"
    )


def make_user(app_context: AppContext, caller: Caller, body: UserRequest) -> UserInfo:
    """Create the user that a body describes. Raises InvalidRequest, Conflict, and Forbidden beyond the caller's own tenant."""
    if UserRole(body.role) is UserRole.OPERATOR:
        require(caller, Scope.FARM)
    tenant = tenant_of_grant(app_context.store, caller, body.tenant)
    return create_user(app_context.store, **body.model_dump() | {"tenant": tenant}, by=caller.name)


class PasswordRequest(Body):
    """A new password."""

    password: Password
