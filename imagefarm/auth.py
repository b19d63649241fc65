"""Authentication: API keys, their scopes and limits, and whether the farm serves requests without a key.

A key has the form `if_<prefix>_<secret>`. The prefix finds the row; the SHA-256 of the whole key proves that the key is genuine.
The secret is 32 random bytes, so a slow password hash would not make it safer. A key is shown once, when it is created.
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

from imagefarm.errors import Conflict, FieldError, Forbidden, InvalidRequest, NotFound
from imagefarm.ids import new_id
from imagefarm.settings import Settings
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append
from imagefarm.store.compiled import CompiledStatement
from imagefarm.store.dialects import per_dialect
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import ApiKey, Tenant

MARK = "if"
MAX_PREFIX_CHARS = 16
PREFIX_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
USED_EVERY_S = 60.0
"""Seconds. `last_used_at` is updated at most this often, because a write for every request would cost too much."""

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
"""Names of the limits that a tenant or a key can have."""
MAX_LIMIT = 2**53 - 1
"""The largest whole number that every JSON parser reads exactly."""


class Scope(StrEnum):
    SUBMIT = "submit"
    """Submit, cancel and retry jobs and batches."""
    READ = "read"
    """See one's own jobs, batches and images."""
    ADMIN = "admin"
    """Also manage the keys and users of one's own tenant, and read its audit."""
    FARM = "farm"
    """Everything, of every tenant: workers, models, settings, limits. Only an explicit grant gives it."""


ALL_SCOPES = frozenset(Scope)
DEFAULT_SCOPES = (Scope.SUBMIT, Scope.READ)
"""Of a key for which no scopes were named."""
ADMIN_SCOPES = (*DEFAULT_SCOPES, Scope.ADMIN)
MIN_LIFETIME_S, MAX_LIFETIME_S = 60.0, 10 * 365 * 86400.0
"""How soon and how late a key may expire."""


class KeyQuota(NamedTuple):
    """The limits of one key within its tenant's limits, and the id under which the key's use is counted.

    A key that replaces another key has the other key's quota id.
    """

    quota_id: str
    limits: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request: a key, a signed-in user, the bearer of a token, or none of these on an open farm."""

    tenant_id: str
    scopes: frozenset[Scope]
    key_id: str | None = None
    user: str | None = None
    subject: str | None = None
    """The subject that a bearer token names."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Limits of the key alone. The tenant's limits apply as well."""
    quota_id: str | None = None
    """The quota id under which the key's own limits are counted."""
    expires_at: float | None = None
    """When a bearer token expires, in seconds since 1970."""

    @property
    def quota(self) -> KeyQuota | None:
        """The key's own limits and their quota id; None without a key, and for a key without limits."""
        return KeyQuota(self.quota_id, self.limits) if self.limits and self.quota_id is not None else None

    @property
    def is_farm_admin(self) -> bool:
        """True for a caller who crosses tenants."""
        return Scope.FARM in self.scopes

    @property
    def name(self) -> str:
        """The name of the caller in the audit."""
        if self.user or self.subject:
            return f"user {self.user}" if self.user else f"token of {self.subject}"
        return self.key_id or "open farm"

    def has_scope(self, scope: Scope) -> bool:
        """True if this caller has the scope. `farm` includes all, and `admin` all but `farm`."""
        return scope in self.scopes or self.is_farm_admin or (Scope.ADMIN in self.scopes and scope is not Scope.FARM)

    def can_see(self, tenant_id: str | None) -> bool:
        """True if this caller may see objects of that tenant."""
        return self.is_farm_admin or tenant_id == self.tenant_id

    @property
    def tenant_filter(self) -> str | None:
        """The tenant that queries and changes are limited to; None for an admin of the farm."""
        return None if self.is_farm_admin else self.tenant_id


OPEN_CALLER = Caller(DEFAULT_TENANT, ALL_SCOPES)
"""The caller of a request without a key on an open farm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """A key without its secret, for lists and responses."""

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
    lifetime_s: float | None

    @property
    def is_replaced(self) -> bool:
        """True for a key that a rotation gave an earlier end."""
        if self.expires_at is None:
            return False
        return self.lifetime_s is None or self.expires_at < self.created_at + self.lifetime_s - 1.0


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
    """A new key. `key` is the only copy of the key's text."""

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
    """True if a request without a key is served. It acts for the default tenant and has all scopes."""
    return settings.auth == "open" or (settings.auth == "auto" and is_loopback(settings.host))


def create_key(
    store: Store,
    *,
    name: str,
    scopes: Iterable[str] = DEFAULT_SCOPES,
    tenant: str = "default",
    limits: Mapping[str, int] | None = None,
    expires_in_s: float | None = None,
    by: str = "operator",
) -> NewKey:
    """Create a key for the tenant called `tenant`, and the tenant if it is new. `limits` apply to this key alone; see LIMITS.

    `expires_in_s` is the lifetime in seconds, from MIN_LIFETIME_S to MAX_LIFETIME_S; None: no expiry. Raises InvalidRequest for
    an unknown scope, an unknown or invalid limit, and a lifetime out of range.
    """
    wanted, own = check_scopes(scopes), check_limit_names(limits or {})
    if expires_in_s is not None and not MIN_LIFETIME_S <= expires_in_s <= MAX_LIFETIME_S:
        detail = f"must be between {MIN_LIFETIME_S:.0f} and {MAX_LIFETIME_S:.0f} seconds"
        raise InvalidRequest([FieldError(field="expires_in", detail=detail, remedy="send another lifetime")])
    with store.write() as session:
        tenant_id = get_or_create_tenant(session, tenant)
        made = _add_key(session, tenant_id=tenant_id, name=name, scopes=wanted, limits=own, lifetime_s=expires_in_s)
        append(session, "key.created", made.info.id, made.info.tenant_id, {"name": name, "scopes": wanted, "by": by})
    return made


def rotate_key(
    store: Store, key_id_or_prefix: str, *, grace_s: float = 86400.0, within: str | None = None, by: str = "operator"
) -> NewKey:
    """Replace a key by a new one with the same name, tenant, scopes, limits and lifetime.

    The old key works for `grace_s` more seconds, from 0 to MAX_GRACE_S. `within` is the tenant whose keys may be changed; None
    means all. Today's use of the old key counts against the new key's limits. Raises InvalidRequest for `grace_s`, NotFound, and
    Conflict for a revoked or expired key.
    """
    if not 0 <= grace_s <= MAX_GRACE_S:
        remedy = "send the number of seconds for which the old key still works"
        raise InvalidRequest([FieldError(field="grace_s", detail=f"must be between 0 and {MAX_GRACE_S} seconds", remedy=remedy)])
    with store.write() as session:
        old = session.get_one(ApiKey, _key_id(session, key_id_or_prefix, within), with_for_update=True)
        made = _add_key(
            session,
            tenant_id=old.tenant_id,
            name=old.name,
            scopes=old.scopes,
            limits=old.limits,
            quota_id=old.quota_id or old.id,
            lifetime_s=old.lifetime_s,
        )
        shortened = update(ApiKey).where(ApiKey.id == old.id, IN_FORCE)
        until = db_now() + grace_s
        ends = case((ApiKey.expires_at < until, ApiKey.expires_at), else_=until)
        if session.execute(shortened.values(expires_at=ends).returning(ApiKey.id)).first() is None:
            raise Conflict(f"key {old.prefix} is not in force; make a new one")
        append(session, "key.rotated", old.id, old.tenant_id, {"by": by, "grace_s": grace_s, "new": made.info.id})
    return made


def _add_key(
    session: Session,
    *,
    tenant_id: str,
    name: str,
    scopes: list[str],
    limits: dict[str, int],
    lifetime_s: float | None,
    quota_id: str | None = None,
) -> NewKey:
    prefix = "".join(secrets.choice(PREFIX_ALPHABET) for _ in range(10))
    key = f"{MARK}_{prefix}_{secrets.token_urlsafe(32)}"
    values: dict[str, Any] = {"id": new_id("key"), "tenant_id": tenant_id, "name": name, "prefix": prefix, "hash": _digest(key)}
    values |= {"scopes": scopes, "limits": limits, "quota_id": quota_id, "lifetime_s": lifetime_s}
    if lifetime_s is not None:
        values["expires_at"] = db_now() + lifetime_s
    session.execute(insert(ApiKey).values(**values, created_at=db_now()))
    return NewKey(key_info(session, str(values["id"])), key)


def check_limit_names(limits: Mapping[str, int]) -> dict[str, int]:
    """Return the limits as a dict. Raises InvalidRequest for an unknown name, and for a value outside 0 to MAX_LIMIT."""
    for name, value in limits.items():
        if name not in LIMITS:
            remedy = "use some of " + ", ".join(LIMITS)
            raise InvalidRequest([FieldError(field=f"limits.{name}"[:100], detail="is not a limit", remedy=remedy)])
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_LIMIT:
            detail, remedy = f"is not a whole number from 0 to {MAX_LIMIT}", "send one, or leave it out for no limit"
            raise InvalidRequest([FieldError(field=f"limits.{name}", detail=detail, remedy=remedy)])
    return {name: int(value) for name, value in limits.items()}


def _key_id(session: Session, key_id_or_prefix: str, within: str | None) -> str:
    found = session.execute(
        select(ApiKey.id, ApiKey.tenant_id, ApiKey.scopes).where(
            (ApiKey.id == key_id_or_prefix) | (ApiKey.prefix == key_id_or_prefix)
        )
    ).first()
    if found is None or (within is not None and (found.tenant_id != within or Scope.FARM in found.scopes)):
        raise NotFound(f"no key {key_id_or_prefix!r}")  # an admin of a tenant has no power over a key of the farm's
    return str(found.id)


def revoke_key(store: Store, key_id_or_prefix: str, *, within: str | None = None, by: str = "operator") -> KeyInfo:
    """Revoke a key at once. Revoking it again changes nothing. `within` is as in `rotate_key`. Raises NotFound."""
    with store.write() as session:
        key_id = _key_id(session, key_id_or_prefix, within)
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
    """All keys, newest first, including revoked ones; with `tenant_id`, those of one tenant."""
    statement = select(ApiKey, Tenant.name).join(Tenant, Tenant.id == ApiKey.tenant_id, isouter=True).order_by(ApiKey.id.desc())
    if tenant_id is not None:
        statement = statement.where(ApiKey.tenant_id == tenant_id)
    with store.read() as session:
        return [_info(row, tenant) for row, tenant in session.execute(statement)]


def has_keys(store: Store) -> bool:
    """True if any key is neither revoked nor expired."""
    with store.read() as session:
        return session.scalar(select(ApiKey.id).where(IN_FORCE).limit(1)) is not None


def authenticate_key(store: Store, key: str) -> Caller | None:
    """The caller that this key belongs to; None if the key is malformed, unknown, wrong, expired or revoked."""
    mark, _, rest = key.partition("_")
    prefix, _, secret = rest.partition("_")
    if mark != MARK or not secret or not prefix.isascii() or not prefix.isalnum() or not secret.isascii():
        return None
    with store.autocommit_read() as sql:  # every request runs this: a session would cost too much
        found = FIND_KEY.run(sql, {"of_prefix": prefix})
    row = FoundKey(*found[0]) if found else None
    # compared also when there is no such row, so that the response time does not show whether the prefix exists
    right = hmac.compare_digest(row.hash if row is not None else _digest(""), _digest(key))
    if row is None or not right or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= row.now):
        return None
    if row.last_used_at is None or row.now - row.last_used_at > USED_EVERY_S:
        with store.write(durable=False) as session:
            session.execute(update(ApiKey).where(ApiKey.id == row.id).values(last_used_at=db_now()))
    return key_caller(row)


def key_prefix(key: str) -> str:
    """The part of a key that may be shown, as `if_<prefix>`; empty for a text that is not of a key's form."""
    mark, _, rest = key.partition("_")
    prefix, _, secret = rest.partition("_")
    return f"{mark}_{prefix}" if mark == MARK and secret and len(prefix) <= MAX_PREFIX_CHARS else ""


def key_caller(row: Any) -> Caller:
    """The caller of a key's row."""
    scopes = frozenset(Scope(scope) for scope in row.scopes)
    return Caller(row.tenant_id, scopes, row.id, limits=row.limits, quota_id=row.quota_id or row.id)


def check_scopes(scopes: Iterable[str]) -> list[str]:
    """The scopes without duplicates, in the order of `Scope`. Raises InvalidRequest for an unknown scope."""
    given = list(scopes)
    unknown = [scope for scope in given if scope not in ALL_SCOPES]
    if unknown or not given:
        remedy = "use some of " + ", ".join(Scope)
        raise InvalidRequest(
            [FieldError(field="scopes", detail=f"no scope {unknown[0]!r}" if unknown else "is empty", remedy=remedy)]
        )
    return [str(scope) for scope in Scope if scope in given]


def tenant_of_grant(store: Store, caller: Caller, wanted: str | None) -> str:
    """The tenant (name or id) of a key or user that the caller creates: `wanted`, or the caller's own.

    Raises Forbidden for another tenant than the caller's own, unless the caller is an admin of the farm.
    """
    if wanted is None or caller.is_farm_admin:
        return wanted or caller.tenant_id
    with store.read() as session:
        own = session.scalar(select(Tenant.name).where(Tenant.id == caller.tenant_id))
    if wanted not in {own, caller.tenant_id}:
        raise Forbidden(f"an admin of the tenant {own} manages that tenant alone; for {wanted} it takes the scope farm")
    return caller.tenant_id


def get_or_create_tenant(session: Session, name: str) -> str:
    """The id of the tenant with this name or id. A tenant that does not exist is created in the caller's transaction.

    Of several concurrent transactions one creates the tenant; the others wait for it and return the same id.
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
    """A key without its secret. Raises NotFound."""
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
        lifetime_s=row.lifetime_s,
    )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
