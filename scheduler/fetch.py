"""The one way out: requests to URLs that callers gave. Public addresses only, resolved once, no redirects, bounded.

Names are resolved here, every address that comes back is checked, and the connection goes to the checked address: a name
that answers otherwise the next time (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from imagefarm.errors import FarmError, FieldError, InvalidRequest

MAX_URL_CHARS = 2048
TUNNELS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))
"""IPv6 ranges that carry an IPv4 address inside, which may be any."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class FetchFailed(FarmError):
    """The other side could not be reached, or did not answer as it should."""

    code = "fetch_failed"


@dataclass(frozen=True, slots=True)
class Target:
    """A URL whose host was resolved and found allowed."""

    url: str
    host: str
    port: int
    address: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer: status and at most the allowed bytes of its body."""

    status: int
    body: bytes


def is_public(address: Address) -> bool:
    """True if the address belongs to the Internet at large.

    >>> is_public(ipaddress.ip_address("::ffff:10.0.0.1"))
    False
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in TUNNELS):
            return False
    return address.is_global and not address.is_multicast


def check_url(url: str, *, allow_private: bool, field: str = "url") -> Target:
    """Resolve the URL's host and check where it leads. Raises InvalidRequest naming `field`, FetchFailed if it has no address."""

    def refuse(detail: str, remedy: str) -> InvalidRequest:
        return InvalidRequest([FieldError(field=field, detail=detail, remedy=remedy)])

    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise refuse(f"is not a URL: {error}", "write it like https://example.com/hook") from None
    if (
        parts.scheme not in {"http", "https"}
        or not host
        or len(url) > MAX_URL_CHARS
        or not url.isascii()
        or not url.isprintable()
    ):
        raise refuse("is not an http or https URL", "write it like https://example.com/hook")
    if parts.username is not None or parts.password is not None:
        raise refuse("carries a user name or password", "leave it out; messages are signed")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise FetchFailed(f"the host {host[:100]} has no address") from None
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not allow_private and not all(is_public(ipaddress.ip_address(address)) for address in addresses):
        raise refuse("leads to an address that is not public", "use a public one, or have the operator set allow_private_urls")
    return Target(url, host, port, addresses[0])


def fetch(
    target: Target,
    method: str = "GET",
    *,
    content: bytes = b"",
    headers: dict[str, str] | None = None,
    timeout_s: float = 10.0,
    max_bytes: int = 64 * 1024,
) -> Fetched:
    """Ask the checked address; a redirect is an answer like any other. Raises FetchFailed."""
    parts = urlsplit(target.url)
    literal = f"[{target.address}]" if ":" in target.address else target.address
    pinned = parts._replace(netloc=f"{literal}:{target.port}", fragment="").geturl()
    host = f"[{target.host}]" if ":" in target.host else target.host
    named = host if target.port in {80, 443} else f"{host}:{target.port}"
    deadline = time.monotonic() + timeout_s
    body = bytearray()
    try:
        with (
            httpx.Client(trust_env=False, follow_redirects=False, timeout=timeout_s) as client,
            client.stream(
                method,
                pinned,
                content=content or None,
                headers={"Host": named, "User-Agent": "imagefarm", "Accept-Encoding": "identity", **(headers or {})},
                extensions={"sni_hostname": target.host},
            ) as response,
        ):
            for piece in response.iter_raw(16 * 1024):
                body += piece
                if len(body) > max_bytes:
                    raise FetchFailed(f"the answer is larger than {max_bytes} bytes")
                if time.monotonic() > deadline:
                    raise FetchFailed(f"no whole answer within {timeout_s:.0f} s")
            return Fetched(response.status_code, bytes(body))
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise FetchFailed(f"{type(error).__name__}: {str(error)[:200]}") from None
