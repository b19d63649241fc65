"""Users who sign in, and their browser sessions.

A password is stored as argon2id. A session is a random token in a cookie; the database stores only the token's hash, and can end
the session. A session ends when it has been idle too long, when it is too old, when its user signs out or gets a new password,
or when the key that opened it is revoked.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from imagefarm.auth import ADMIN_SCOPES, ALL_SCOPES, Caller, Scope, get_or_create_tenant, key_caller
from imagefarm.errors import Conflict, FieldError, InvalidRequest, NotFound
from imagefarm.ids import new_id
from imagefarm.settings import Settings
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append
from imagefarm.store.dialects import per_dialect
from imagefarm.store.models import ApiKey, Tenant, UserAccount, WebSession

MIN_PASSWORD_CHARS, MAX_PASSWORD_CHARS = 10, 200
NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")
SEEN_EVERY_S = 60.0
"""Seconds. `seen_at` is updated at most this often, because a write for every request would cost too much."""
KEEP_IDLE_S = 90 * 86400.0
"""Seconds after which an unused session's row is deleted. The settings end every session earlier."""

_hasher = PasswordHasher()
_NOBODY = _hasher.hash(secrets.token_urlsafe(16))
"""Verified when the user does not exist, so that the response time does not show whether the name exists."""


class Role(StrEnum):
    VIEWER = "viewer"
    """Sees the tenant's objects."""
    MEMBER = "member"
    """Also submits, cancels and retries."""
    ADMIN = "admin"
    """Also manages the tenant's keys and users."""
    OPERATOR = "operator"
    """May do everything for every tenant."""


SCOPES: Mapping[Role, frozenset[Scope]] = {
    Role.VIEWER: frozenset({Scope.READ}),
    Role.MEMBER: frozenset({Scope.READ, Scope.SUBMIT}),
    Role.ADMIN: frozenset(ADMIN_SCOPES),
    Role.OPERATOR: ALL_SCOPES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UserInfo:
    """A user without the password hash."""

    id: str
    name: str
    role: str
    tenant_id: str
    tenant: str
    created_at: float
    disabled_at: float | None
    last_sign_in_at: float | None


def create_user(
    store: Store, *, name: str, password: str, role: str = Role.MEMBER, tenant: str = "default", by: str = "operator"
) -> UserInfo:
    """Create a user of the tenant called `tenant`, and the tenant if it is new. Raises InvalidRequest, and Conflict for a name in
    use."""
    name = name.lower()
    if not NAME.fullmatch(name):
        _refuse("name", "is not a valid user name", "use 1 to 64 of a-z 0-9 . _ @ + -, a letter or digit first")
    if role not in set(Role):
        _refuse("role", f"no role {role[:40]!r}", "use one of " + ", ".join(Role))
    hashed = _hash(password)
    with store.write() as session:
        user_id = new_id("user")
        values = {
            "id": user_id,
            "name": name,
            "password_hash": hashed,
            "role": role,
            "tenant_id": get_or_create_tenant(session, tenant),
        }
        if session.execute(NEW_USER[session.connection().dialect.name], values).first() is None:
            raise Conflict(f"there is a user {name!r} already")
        append(session, "user.created", user_id, values["tenant_id"], {"role": role, "by": by})
        return _info(session, user_id)


def set_password(store: Store, name: str, password: str, *, within: str | None = None, by: str = "operator") -> UserInfo:
    """Set a user's password and end the user's sessions. Raises NotFound, and InvalidRequest for the password's length.

    `within` is the tenant whose users may be changed; None means all.
    """
    hashed = _hash(password)
    with store.write() as session:
        user_id = _user_id(session, name, within)
        session.execute(update(UserAccount).where(UserAccount.id == user_id).values(password_hash=hashed))
        session.execute(delete(WebSession).where(WebSession.user_id == user_id))
        info = _info(session, user_id)
        append(session, "user.password", user_id, info.tenant_id, {"by": by})
        return info


def disable_user(store: Store, name: str, *, within: str | None = None, by: str = "operator") -> UserInfo:
    """Forbid a user to sign in, and end the user's sessions. Disabling the user again changes nothing. Raises NotFound.

    `within` is as in `set_password`.
    """
    with store.write() as session:
        user_id = _user_id(session, name, within)
        changed = update(UserAccount).where(UserAccount.id == user_id, UserAccount.disabled_at.is_(None))
        first = session.execute(changed.values(disabled_at=db_now()).returning(UserAccount.tenant_id)).first()
        session.execute(delete(WebSession).where(WebSession.user_id == user_id))
        if first:
            append(session, "user.disabled", user_id, first.tenant_id, {"by": by})
        return _info(session, user_id)


def list_users(store: Store, *, tenant_id: str | None = None) -> list[UserInfo]:
    """All users, or all of one tenant, by name."""
    statement = select(UserAccount.id).order_by(UserAccount.name)
    if tenant_id is not None:
        statement = statement.where(UserAccount.tenant_id == tenant_id)
    with store.read() as session:
        return [_info(session, user_id) for user_id in session.scalars(statement)]


def has_users(store: Store) -> bool:
    """True if at least one user can sign in."""
    with store.read() as session:
        return session.scalar(select(UserAccount.id).where(UserAccount.disabled_at.is_(None)).limit(1)) is not None


def check_password(store: Store, name: str, password: str) -> str | None:
    """The id of the user with that name and password; None if either is wrong."""
    name = name.lower() if NAME.fullmatch(name.lower()) else ""
    with store.read() as session:
        found = select(UserAccount.id, UserAccount.password_hash, UserAccount.disabled_at)
        row = session.execute(found.where(UserAccount.name == name)).first()
    try:
        _hasher.verify(row.password_hash if row else _NOBODY, password[: MAX_PASSWORD_CHARS + 1].encode("utf-8", "replace"))
    except (VerificationError, InvalidHashError):
        return None
    return row.id if row and row.disabled_at is None else None


def open_session(store: Store, *, user_id: str | None = None, key_id: str | None = None) -> str:
    """Start a session of a user or a key. Returns the token for the cookie."""
    token = secrets.token_urlsafe(32)
    with store.write() as session:
        values = {"token_hash": _digest(token), "user_id": user_id, "key_id": key_id}
        session.execute(insert(WebSession).values(**values, created_at=db_now(), seen_at=db_now()))
        if user_id is not None:
            session.execute(update(UserAccount).where(UserAccount.id == user_id).values(last_sign_in_at=db_now()))
            tenant_id = session.scalar(select(UserAccount.tenant_id).where(UserAccount.id == user_id))
            append(session, "user.signed_in", user_id, tenant_id, {})
    return token


def close_session(store: Store, token: str) -> None:
    """End a session."""
    with store.write() as session:
        session.execute(delete(WebSession).where(WebSession.token_hash == _digest(token)))


def session_caller(store: Store, token: str, settings: Settings) -> Caller | None:
    """The signed-in caller of this token; None if the session does not exist or has ended."""
    if not token or len(token) > 100:
        return None
    hashed = _digest(token)
    with store.reader.connect() as sql:
        row = sql.execute(FIND, {"hash": hashed}).first()
        if row is None or row.now - row.seen_at > settings.session_idle_s or row.now - row.began_at > settings.session_max_age_s:
            return None
        key = sql.execute(KEY, {"key_id": row.key_id}).first() if row.key_id is not None else None
    if row.now - row.seen_at > SEEN_EVERY_S:
        with store.write(durable=False) as session:
            session.execute(update(WebSession).where(WebSession.token_hash == hashed).values(seen_at=db_now()))
    if row.user_id is not None:
        alive = row.name is not None and row.disabled_at is None
        return Caller(row.tenant_id, SCOPES[Role(row.role)], user=row.name) if alive else None
    if key is None or key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= row.now):
        return None
    return key_caller(key)


def forget_old_sessions(session: Session) -> int:
    """Delete the sessions that were not used for KEEP_IDLE_S; return how many. The settings ended them long before."""
    over = WebSession.seen_at < db_now() - KEEP_IDLE_S
    return len(session.scalars(delete(WebSession).where(over).returning(WebSession.token_hash)).all())


NEW_USER = per_dialect(
    lambda insert_into: (
        insert_into(UserAccount)
        .values(created_at=db_now())
        .on_conflict_do_nothing(index_elements=[UserAccount.name])
        .returning(UserAccount.id)
    )
)
FIND = (
    select(
        WebSession.user_id,
        WebSession.key_id,
        WebSession.created_at.label("began_at"),
        WebSession.seen_at,
        UserAccount.name,
        UserAccount.role,
        UserAccount.tenant_id,
        UserAccount.disabled_at,
        db_now().label("now"),
    )
    .join(UserAccount, UserAccount.id == WebSession.user_id, isouter=True)
    .where(WebSession.token_hash == bindparam("hash"))
)
KEY = select(
    ApiKey.id, ApiKey.tenant_id, ApiKey.scopes, ApiKey.limits, ApiKey.quota_id, ApiKey.revoked_at, ApiKey.expires_at
).where(ApiKey.id == bindparam("key_id"))


def _hash(password: str) -> str:
    if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
        _refuse("password", f"has not {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters", "choose another")
    return _hasher.hash(password)


def _user_id(session: Session, name: str, within: str | None) -> str:
    """The user's id. `within` is the tenant whose users may be changed, without the farm's operators; None means all."""
    found = session.execute(
        select(UserAccount.id, UserAccount.tenant_id, UserAccount.role).where(
            (UserAccount.name == name.lower()) | (UserAccount.id == name)
        )
    ).first()
    if found is None or (within is not None and (found.tenant_id != within or found.role == Role.OPERATOR)):
        raise NotFound(f"no user {name[:64]!r}")
    return str(found.id)


def _info(session: Session, user_id: str) -> UserInfo:
    row = session.get_one(UserAccount, user_id, populate_existing=True)
    tenant = session.scalar(select(Tenant.name).where(Tenant.id == row.tenant_id)) or ""
    return UserInfo(
        id=row.id,
        name=row.name,
        role=row.role,
        tenant_id=row.tenant_id,
        tenant=tenant,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        last_sign_in_at=row.last_sign_in_at,
    )


def _refuse(field: str, detail: str, remedy: str) -> None:
    raise InvalidRequest([FieldError(field=field, detail=detail, remedy=remedy)])


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "backslashreplace")).hexdigest()
