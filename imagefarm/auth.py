"""Who asks: API keys, their scopes, and whether the farm is open.

A key reads `if_<prefix>_<secret>`. The prefix finds the row, the SHA-256 of the whole proves it; the secret is 32 random
bytes, so a slow password hash would add nothing. The key itself is shown once, when it is made.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import bindparam, case, insert, select, update
from sqlalchemy.orm import Session

from imagefarm.errors import Conflict, FieldError, InvalidRequest, NotFound
from imagefarm.ids import new_id
from imagefarm.settings import Settings
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append
from imagefarm.store.compiled import CompiledStatement
from imagefarm.store.dialects import per_dialect
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import ApiKey, Tenant

MARK = "if"
PREFIX_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
USED_EVERY_S = 60.0
"""How exact `last_used_at` is: a write for every request would cost more than it tells."""

KEY_OF_PREFIX = select(
    ApiKey.id,
    ApiKey.tenant_id,
    ApiKey.hash,
    ApiKey.scopes,
    ApiKey.limits,
    ApiKey.quota_id,
    ApiKey.revoked_at,
    ApiKey.expires_at,
    ApiKey.last_used_at,
    db_now().label("now"),
).where(ApiKey.prefix == bindparam("of_prefix"))
NEW_TENANT = per_dialect(
    lambda insert_into: (
        insert_into(Tenant).values(created_at=db_now()).on_conflict_do_nothing(index_elements=[Tenant.name]).returning(Tenant.id)
    )
)
FIND_KEY = CompiledStatement(KEY_OF_PREFIX)
IN_FORCE = ApiKey.revoked_at.is_(None) & (ApiKey.expires_at.is_(None) | (ApiKey.expires_at > db_now()))
MAX_GRACE_S = 90 * 86400
LIMITS = ("queued", "running", "images_per_day", "pixels", "steps")
"""What may be limited for a tenant and for a key."""
MAX_LIMIT = 2**53 - 1
"""The largest whole number that every reader of JSON has."""


class Scope(StrEnum):
    SUBMIT = "submit"
    """Submit, cancel and retry jobs and batches."""
    READ = "read"
    """See one's own jobs, batches and images."""
    ADMIN = "admin"
    """Everything, of every tenant: workers, keys, audit."""


ALL_SCOPES = frozenset(Scope)


class KeyQuota(NamedTuple):
    """The limits of one key within its tenant's, and the id under which their use is counted.

    A key that replaces another has the same id.
    """

    quota_id: str
    limits: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a request: a key, a person who signed in, the bearer of a token, or anybody on an open farm (none of these)."""

    tenant_id: str
    scopes: frozenset[Scope]
    key_id: str | None = None
    user: str | None = None
    subject: str | None = None
    """Whom a bearer token names."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Of the key alone; the tenant's hold besides."""
    quota_id: str | None = None
    """Under which id the key's own limits are counted."""

    @property
    def quota(self) -> KeyQuota | None:
        """What the caller's key may ask for within its tenant's limits; None for a key without limits, and without a key."""
        return KeyQuota(self.quota_id, self.limits) if self.limits and self.quota_id is not None else None

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    @property
    def name(self) -> str:
        """How the audit calls the caller."""
        if self.user or self.subject:
            return f"user {self.user}" if self.user else f"token of {self.subject}"
        return self.key_id or "open farm"

    def has_scope(self, scope: Scope) -> bool:
        """True if this caller has the scope; admin has all."""
        return scope in self.scopes or self.is_admin

    def can_see(self, tenant_id: str | None) -> bool:
        """True if this caller may know of what belongs to that tenant."""
        return self.is_admin or tenant_id == self.tenant_id

    @property
    def tenant_filter(self) -> str | None:
        """The tenant that queries are limited to; None for an admin, who sees all."""
        return None if self.is_admin else self.tenant_id


OPEN_CALLER = Caller(DEFAULT_TENANT, ALL_SCOPES)
"""Who asks without a key on an open farm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """A key as it may be shown: never the secret."""

    id: str
    name: str
    prefix: str
    tenant_id: str
    tenant: str
    scopes: list[str]
    limits: dict[str, int]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None


class FoundKey(NamedTuple):
    """A row of KEY_OF_PREFIX."""

    id: str
    tenant_id: str
    hash: str
    scopes: list[str]
    limits: dict[str, int]
    quota_id: str | None
    revoked_at: float | None
    expires_at: float | None
    last_used_at: float | None
    now: float


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. `key` is the only copy there will ever be."""

    info: KeyInfo
    key: str


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_open(settings: Settings) -> bool:
    """True if a request without a key is served, as the default tenant with all scopes."""
    return settings.auth == "open" or (settings.auth == "auto" and is_loopback(settings.host))


def create_key(
    store: Store,
    *,
    name: str,
    scopes: Iterable[str] = (Scope.SUBMIT, Scope.READ),
    tenant: str = "default",
    limits: Mapping[str, int] | None = None,
    by: str = "operator",
) -> NewKey:
    """Make a key for the tenant called `tenant`, who is made if new. `limits` hold for this key alone; see LIMITS.

    Raises InvalidRequest for a scope or a limit that is not one.
    """
    wanted, own = check_scopes(scopes), check_limit_names(limits or {})
    with store.write() as session:
        made = _add_key(session, tenant_id=get_or_create_tenant(session, tenant), name=name, scopes=wanted, limits=own)
        append(session, "key.created", made.info.id, made.info.tenant_id, {"name": name, "scopes": wanted, "by": by})
    return made


def rotate_key(store: Store, key_id_or_prefix: str, *, grace_s: float = 86400.0, by: str = "operator") -> NewKey:
    """Replace a key by a new one of the same name, tenant, scopes and limits; the old one holds for `grace_s` more.

    What the old one has used of its limits today counts for the new one. Raises NotFound, and Conflict for a key that is not
    in force.
    """
    if not 0 <= grace_s <= MAX_GRACE_S:
        remedy = f"use 0 to {MAX_GRACE_S} seconds"
        raise InvalidRequest([FieldError(field="grace_s", detail="is no time that an old key may hold", remedy=remedy)])
    with store.write() as session:
        old = session.get_one(ApiKey, _key_id(session, key_id_or_prefix), with_for_update=True)
        made = _add_key(
            session, tenant_id=old.tenant_id, name=old.name, scopes=old.scopes, limits=old.limits, quota_id=old.quota_id or old.id
        )
        shortened = update(ApiKey).where(ApiKey.id == old.id, IN_FORCE)
        until = db_now() + grace_s
        ends = case((ApiKey.expires_at < until, ApiKey.expires_at), else_=until)
        if session.execute(shortened.values(expires_at=ends).returning(ApiKey.id)).first() is None:
            raise Conflict(f"key {old.prefix} is not in force; make a new one")
        append(session, "key.rotated", old.id, old.tenant_id, {"by": by, "grace_s": grace_s, "new": made.info.id})
    return made


def _add_key(
    session: Session, *, tenant_id: str, name: str, scopes: list[str], limits: dict[str, int], quota_id: str | None = None
) -> NewKey:
    prefix = "".join(secrets.choice(PREFIX_ALPHABET) for _ in range(10))
    key = f"{MARK}_{prefix}_{secrets.token_urlsafe(32)}"
    values: dict[str, Any] = {"id": new_id("key"), "tenant_id": tenant_id, "name": name, "prefix": prefix, "hash": _digest(key)}
    values |= {"scopes": scopes, "limits": limits, "quota_id": quota_id}
    session.execute(insert(ApiKey).values(**values, created_at=db_now()))
    return NewKey(key_info(session, str(values["id"])), key)


def check_limit_names(limits: Mapping[str, int]) -> dict[str, int]:
    """The limits, checked: known names, whole numbers from 0. Raises InvalidRequest."""
    for name, value in limits.items():
        if name not in LIMITS:
            remedy = "use some of " + ", ".join(LIMITS)
            raise InvalidRequest([FieldError(field=f"limits.{name}"[:100], detail="is not a limit", remedy=remedy)])
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_LIMIT:
            detail, remedy = f"is not a whole number from 0 to {MAX_LIMIT}", "send one, or leave it out for no limit"
            raise InvalidRequest([FieldError(field=f"limits.{name}", detail=detail, remedy=remedy)])
    return {name: int(value) for name, value in limits.items()}


def _key_id(session: Session, key_id_or_prefix: str) -> str:
    key_id = session.scalar(select(ApiKey.id).where((ApiKey.id == key_id_or_prefix) | (ApiKey.prefix == key_id_or_prefix)))
    if key_id is None:
        raise NotFound(f"no key {key_id_or_prefix!r}")
    return key_id


def revoke_key(store: Store, key_id_or_prefix: str, *, by: str = "operator") -> KeyInfo:
    """Make a key useless from now on; repeating does no harm. Raises NotFound."""
    with store.write() as session:
        key_id = _key_id(session, key_id_or_prefix)
        revoked = session.execute(
            update(ApiKey)
            .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
            .values(revoked_at=db_now())
            .returning(ApiKey.tenant_id)
        ).first()
        if revoked:
            append(session, "key.revoked", key_id, revoked.tenant_id, {"by": by})
        return key_info(session, key_id)


def list_keys(store: Store, *, tenant_id: str | None = None) -> list[KeyInfo]:
    """All keys, newest first, revoked ones too; of one tenant, if given."""
    statement = select(ApiKey, Tenant.name).join(Tenant, Tenant.id == ApiKey.tenant_id, isouter=True).order_by(ApiKey.id.desc())
    if tenant_id is not None:
        statement = statement.where(ApiKey.tenant_id == tenant_id)
    with store.read() as session:
        return [_info(row, tenant) for row, tenant in session.execute(statement)]


def has_keys(store: Store) -> bool:
    """True if any key is in force."""
    with store.read() as session:
        return session.scalar(select(ApiKey.id).where(IN_FORCE).limit(1)) is not None


def authenticate_key(store: Store, key: str) -> Caller | None:
    """Who holds this key; None if it is malformed, unknown, wrong or revoked, without saying which."""
    mark, _, rest = key.partition("_")
    prefix, _, secret = rest.partition("_")
    if mark != MARK or not secret or not prefix.isascii() or not prefix.isalnum() or not secret.isascii():
        return None
    with store.autocommit_read() as sql:  # every request comes here: no need for a whole session
        found = FIND_KEY.run(sql, {"of_prefix": prefix})
    row = FoundKey(*found[0]) if found else None
    # compared also when there is no such row, so that the time taken does not tell
    right = hmac.compare_digest(row.hash if row is not None else _digest(""), _digest(key))
    if row is None or not right or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= row.now):
        return None
    if row.last_used_at is None or row.now - row.last_used_at > USED_EVERY_S:
        with store.write(durable=False) as session:
            session.execute(update(ApiKey).where(ApiKey.id == row.id).values(last_used_at=db_now()))
    return key_caller(row)


def key_caller(row: Any) -> Caller:
    """Whom a key's row stands for."""
    scopes = frozenset(Scope(scope) for scope in row.scopes)
    return Caller(row.tenant_id, scopes, row.id, limits=row.limits, quota_id=row.quota_id or row.id)


def check_scopes(scopes: Iterable[str]) -> list[str]:
    """The scopes, each once, in their own order; raise InvalidRequest naming one that is not a scope."""
    given = list(scopes)
    unknown = [scope for scope in given if scope not in ALL_SCOPES]
    if unknown or not given:
        remedy = "use some of " + ", ".join(Scope)
        raise InvalidRequest(
            [FieldError(field="scopes", detail=f"no scope {unknown[0]!r}" if unknown else "is empty", remedy=remedy)]
        )
    return [str(scope) for scope in Scope if scope in given]


def get_or_create_tenant(session: Session, name: str) -> str:
    """The id of the tenant called `name` (or with that id), made if there is none, in the caller's transaction.

    Of several that make it at once one does; the others wait for it and have the same.
    """
    known = select(Tenant.id).where((Tenant.name == name) | (Tenant.id == name)).limit(1)
    found = session.scalar(known)
    if found is not None:
        return found
    tenant_id = new_id("tenant")
    values = {"id": tenant_id, "name": name, "weight": 1.0, "limits": {}}
    if session.execute(NEW_TENANT[session.connection().dialect.name], values).first() is None:
        return session.scalars(known).one()
    append(session, "tenant.created", tenant_id, tenant_id, {"name": name})
    return tenant_id


def key_info(session: Session, key_id: str) -> KeyInfo:
    """A key as it may be shown."""
    row = session.get_one(ApiKey, key_id, populate_existing=True)
    return _info(row, session.scalar(select(Tenant.name).where(Tenant.id == row.tenant_id)))


def _info(row: ApiKey, tenant: str | None) -> KeyInfo:
    return KeyInfo(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        tenant_id=row.tenant_id,
        tenant=tenant or "",
        scopes=row.scopes,
        limits=row.limits,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
