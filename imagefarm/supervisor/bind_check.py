"""Checks the address that the API listens on: a farm without keys listens only on a loopback address."""

from __future__ import annotations

from imagefarm.auth import has_keys, is_loopback
from imagefarm.errors import ConfigurationError
from imagefarm.settings import Settings
from imagefarm.store import Store
from imagefarm.users import has_users


def check_bind_address(settings: Settings, store: Store) -> str | None:
    """Raise ConfigurationError if other machines could reach a farm without keys and users. Returns a warning if `auth` is
    open."""
    if is_loopback(settings.host):
        return None
    if settings.auth == "open":
        return f"auth = open on {settings.host}: anyone who can reach this address can use, read and administer the farm"
    if not has_keys(store) and not has_users(store):
        raise ConfigurationError(
            f"{settings.host} is not a loopback address and there is no API key and no user: make one first with "
            "`imagefarm keys create NAME --farm-wide` or `imagefarm users create NAME --role operator`, or listen on 127.0.0.1"
        )
    return None
