"""Who asks: API keys, their scopes, and whether the farm is open.

A key reads `if_<prefix>_<secret>`. The prefix finds the row, the SHA-256 of the whole proves it; the secret is 32 random
bytes, so a slow password hash would add nothing. The key itself is shown once, when it is made.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from imagefarm.errors import FieldError, InvalidRequest, NotFound
from imagefarm.ids import new_id
from imagefarm.settings import Settings
from imagefarm.store import Store, db_now
from imagefarm.store.audit import append
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import ApiKey, Tenant

MARK = "if"
PREFIX_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
USED_EVERY_S = 60.0
"""How exact `last_used_at` is: a write for every request would cost more than it tells."""

KEY_OF_PREFIX = select(
    ApiKey.id, ApiKey.tenant_id, ApiKey.hash, ApiKey.scopes, ApiKey.revoked_at, ApiKey.last_used_at, db_now().label("now")
).where(ApiKey.prefix == bindparam("of_prefix"))


class Scope(StrEnum):
    SUBMIT = "submit"
    """Submit, cancel and retry jobs and batches."""
    READ = "read"
    """See one's own jobs, batches and images."""
    ADMIN = "admin"
    """Everything, of every tenant: workers, keys, audit."""


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a request. `key_id` is None on an open farm."""

    tenant_id: str
    scopes: frozenset[Scope]
    key_id: str | None = None

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    @property
    def name(self) -> str:
        """How the audit calls the caller."""
        return self.key_id or "open farm"

    def may(self, scope: Scope) -> bool:
        """True if this caller has the scope; admin has all."""
        return scope in self.scopes or self.is_admin

    def sees(self, tenant_id: str | None) -> bool:
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
    created_at: float
    revoked_at: float | None
    last_used_at: float | None


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
    store: Store, *, name: str, scopes: Iterable[str] = (Scope.SUBMIT, Scope.READ), tenant: str = "default", by: str = "operator"
) -> NewKey:
    """Make a key for the tenant called `tenant`, who is made if new. Raises InvalidRequest for a scope that is not one."""
    wanted = check_scopes(scopes)
    prefix = "".join(secrets.choice(PREFIX_ALPHABET) for _ in range(10))
    key = f"{MARK}_{prefix}_{secrets.token_urlsafe(32)}"
    key_id = new_id("key")
    with store.write() as session:
        session.execute(
            insert(ApiKey).values(
                id=key_id,
                tenant_id=tenant_named(session, tenant),
                name=name,
                prefix=prefix,
                hash=_digest(key),
                scopes=wanted,
                created_at=db_now(),
                revoked_at=None,
                last_used_at=None,
            )
        )
        info = key_info(session, key_id)
        append(session, "key.created", key_id, info.tenant_id, {"name": name, "scopes": wanted, "by": by})
    return NewKey(info, key)


def revoke_key(store: Store, key_id_or_prefix: str, *, by: str = "operator") -> KeyInfo:
    """Make a key useless from now on; repeating does no harm. Raises NotFound."""
    with store.write() as session:
        key_id = session.scalar(select(ApiKey.id).where((ApiKey.id == key_id_or_prefix) | (ApiKey.prefix == key_id_or_prefix)))
        if key_id is None:
            raise NotFound(f"no key {key_id_or_prefix!r}")
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
        return session.scalar(select(ApiKey.id).where(ApiKey.revoked_at.is_(None)).limit(1)) is not None


def caller_of(store: Store, key: str) -> Caller | None:
    """Who holds this key; None if it is malformed, unknown, wrong or revoked, without saying which."""
    mark, _, rest = key.partition("_")
    prefix, _, secret = rest.partition("_")
    if mark != MARK or not secret or not prefix.isascii() or not prefix.isalnum() or not secret.isascii():
        return None
    with store.reader.connect() as sql:  # every request comes here: no need for a whole session
        row = sql.execute(KEY_OF_PREFIX, {"of_prefix": prefix}).first()
    # compared also when there is no such row, so that the time taken does not tell
    right = hmac.compare_digest(row.hash if row is not None else _digest(""), _digest(key))
    if row is None or not right or row.revoked_at is not None:
        return None
    if row.last_used_at is None or row.now - row.last_used_at > USED_EVERY_S:
        with store.write() as session:
            session.execute(update(ApiKey).where(ApiKey.id == row.id).values(last_used_at=db_now()))
    return Caller(row.tenant_id, frozenset(Scope(scope) for scope in row.scopes), row.id)


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


def tenant_named(session: Session, name: str) -> str:
    """The id of the tenant called `name` (or with that id), made if there is none, in the caller's transaction."""
    known = session.scalar(select(Tenant.id).where((Tenant.name == name) | (Tenant.id == name)).limit(1))
    if known is not None:
        return known
    tenant_id = new_id("tenant")
    session.execute(insert(Tenant).values(id=tenant_id, name=name, weight=1.0, limits={}, created_at=db_now()))
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
        created_at=row.created_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
