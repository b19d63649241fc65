"""imagefarm: the shared core of the render farm, and the client: `from imagefarm import Client`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from imagefarm.version import __version__

if TYPE_CHECKING:
    from imagefarm.client import AsyncClient, Client, ClientError

__all__ = ["AsyncClient", "Client", "ClientError", "__version__"]


def __getattr__(name: str) -> Any:
    # loaded at first use: every service imports this package, and few services need an HTTP client
    if name in __all__:
        import imagefarm.client

        return getattr(imagefarm.client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
