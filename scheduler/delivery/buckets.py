"""Buckets to which the operator allows deliveries, over the S3 protocol.

A batch names a destination. Its address and credentials belong to the operator: they are in the settings and in a credentials
file, and no row, log or page ever shows them. Errors of a store are reworded, because their texts quote keys and signatures.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from imagefarm.errors import FarmError, FieldError, InvalidRequest
from imagefarm.settings import BucketSettings, Settings
from imagefarm.store.models import Tenant

if TYPE_CHECKING:
    from obstore.store import S3Store

TIMEOUT = "60s"
SHA256 = "sha256"
"""Metadata of every uploaded file, by which a later upload recognises files that are already there."""
TOLD = {
    "PermissionDeniedError": "the bucket refuses these keys",
    "UnauthenticatedError": "the bucket does not know these keys",
    "NotFoundError": "there is no such bucket",
}


class UploadError(FarmError):
    """A bucket did not accept a file."""

    code = "upload_failed"


class Bucket(Protocol):
    """A destination of files."""

    def has(self, key: str, sha256: str) -> bool:
        """Whether exactly this file is there. Raises UploadError."""

    def put(self, key: str, data: bytes, sha256: str, media: str) -> None:
        """Upload a file, replacing an existing one. Raises UploadError."""


def check_bucket(session: Session, settings: Settings, name: str, tenant_id: str, *, field: str = "deliver.bucket") -> None:
    """Raise InvalidRequest if a tenant may not deliver to this bucket."""
    tenant = session.scalar(select(Tenant.name).where(Tenant.id == tenant_id))
    allowed = sorted(each for each, place in settings.buckets.items() if not place.tenants or tenant in place.tenants)
    if name not in allowed:
        remedy = f"use one of {', '.join(allowed)}" if allowed else "ask the operator to add it to the setting buckets"
        raise InvalidRequest([FieldError(field=field, detail=f"no bucket {name[:64]!r} is open to you", remedy=remedy)])


def open_bucket(settings: Settings, name: str) -> Bucket:
    """The bucket of this name. Raises UploadError if it is no longer in the settings, its credentials cannot be read, or the
    software for it is not installed.
    """
    place = settings.buckets.get(name)
    if place is None:
        raise UploadError(f"the setting buckets has no {name!r} any more")
    try:
        from obstore.store import S3Store
    except ImportError:
        raise UploadError("delivery to buckets is not installed here: pip install 'imagefarm-server[bucket]'") from None
    where, _, prefix = place.url.removeprefix("s3://").partition("/")
    options: dict[str, Any] = {"endpoint": place.endpoint} if place.endpoint else {}
    client: dict[str, Any] = {"timeout": TIMEOUT, "connect_timeout": "10s", "allow_http": place.endpoint.startswith("http://")}
    store = S3Store(
        where,
        prefix=prefix.strip("/") or None,
        region=place.region,
        client_options=client,  # type: ignore[arg-type]
        retry_config={"max_retries": 2},
        **options,
        **_keys(place),
    )
    return _S3(store)


def _keys(place: BucketSettings) -> dict[str, Any]:
    if place.key_file is None:
        return {}  # the AWS_* variables of the scheduler's process, or the machine's own role
    try:
        keys = tomllib.loads(Path(place.key_file).read_text("utf-8"))
        return {"access_key_id": str(keys["access_key"]), "secret_access_key": str(keys["secret_key"])}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        what = error.strerror if isinstance(error, OSError) else "it must have access_key and secret_key"
        raise UploadError(f"the bucket's file of keys cannot be read: {what}") from None


class _S3:
    def __init__(self, store: S3Store) -> None:
        self._store = store

    def has(self, key: str, sha256: str) -> bool:
        import obstore
        from obstore.exceptions import BaseError

        try:
            found = obstore.get(self._store, key, options={"head": True})
        except FileNotFoundError:
            return False
        except BaseError as error:
            raise _failed(error) from None
        return found.attributes.get(SHA256) == sha256

    def put(self, key: str, data: bytes, sha256: str, media: str) -> None:
        import obstore
        from obstore.exceptions import BaseError

        try:
            obstore.put(self._store, key, data, attributes={"Content-Type": media, SHA256: sha256})
        except (BaseError, FileNotFoundError) as error:
            raise _failed(error) from None


def _failed(error: Exception) -> UploadError:
    known = "NotFoundError" if isinstance(error, FileNotFoundError) else type(error).__name__
    return UploadError(TOLD.get(known, f"the bucket cannot be reached, or answers with an error ({known})"))
