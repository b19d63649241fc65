"""Request bodies of users who sign in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from api.http.schemas import Body
from api.v1.schemas.keys import Name
from imagefarm.text import check_text
from imagefarm.users import MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS

Role = Literal["viewer", "member", "admin"]
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
    role: Role = Field("member", description="viewer (read), member (read, submit) or admin (all, of every tenant)")
    tenant: Name = Field("default", description="Name of the user's tenant, which is created if it does not exist")


class PasswordRequest(Body):
    """A new password."""

    password: Password
