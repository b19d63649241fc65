"""Who may reach the farm: without keys, only this machine."""

from __future__ import annotations

from imagefarm.auth import has_keys, is_loopback
from imagefarm.errors import ConfigurationError
from imagefarm.settings import Settings
from imagefarm.store import Store
from imagefarm.users import has_users


def check_bind_address(settings: Settings, store: Store) -> str | None:
    """Raise ConfigurationError if others could reach the farm and it has no key; return a warning if an operator left it open."""
    if is_loopback(settings.host):
        return None
    if settings.auth == "open":
        return f"auth = open on {settings.host}: whoever reaches this address may use, read and administer the farm"
    if not has_keys(store) and not has_users(store):
        raise ConfigurationError(
            f"{settings.host} is not a loopback address and there is no API key and no user: make one first with "
            "`imagefarm keys create NAME` or `imagefarm users create NAME`, or listen on 127.0.0.1"
        )
    return None
