"""SSRF-safe requests to URLs from callers: public addresses only, resolved once, no redirects, bounded size and time.

Host names are resolved here, every address is checked, and the connection goes to the checked address. A name that resolves to
another address the next time (DNS rebinding) therefore has no effect.
"""

from __future__ import annotations

import html
import ipaddress
import re
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from imagefarm.errors import FarmError, FieldError, InvalidRequest
from imagefarm.settings import Settings
from imagefarm.text import strip_invisible

MAX_URL_CHARS = 2048
LONE_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
URL_CHARACTERS = "%/:@!$&'()*+,;=?~[]"
"""Characters that are not percent-encoded in paths and queries, besides letters, digits and - . _"""
TRIES = 3
"""Tries of an image fetch while the server is busy (429 and 503)."""
BUSY = (429, 503)
MAX_WAIT_S = 20.0
"""A server that asks for a longer pause, in seconds, is not tried again."""
FIRST_WAIT_S = 0.5
"""Pause before the second try, in seconds, if the server names none. The third try waits twice as long."""
TITLE = re.compile(rb"<title[^>]*>([^<]{1,400})", re.IGNORECASE)
TUNNELS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))
"""IPv6 ranges that contain an IPv4 address, which may be private."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class FetchFailed(FarmError):
    """The server could not be reached, or did not respond as required."""

    code = "fetch_failed"


@dataclass(frozen=True, slots=True)
class Target:
    """A URL whose host was resolved to an allowed address."""

    url: str
    host: str
    port: int
    address: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """A response; its body has at most the allowed number of bytes."""

    status: int
    body: bytes
    content_type: str = ""
    retry_after: str | None = None


def is_public(address: Address) -> bool:
    """Whether the address is on the public Internet.

    >>> is_public(ipaddress.ip_address("::ffff:10.0.0.1"))
    False
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in TUNNELS):
            return False
    return address.is_global and not address.is_multicast


def ascii_url(url: str) -> str:
    """The URL as it is sent: the host in IDNA, other characters percent-encoded. Raises ValueError.

    >>> ascii_url("https://b\u00fccher.example/\u7ea2 mug.jpg?q=50%&x=%20")
    'https://xn--bcher-kva.example/%E7%BA%A2%20mug.jpg?q=50%25&x=%20'
    """
    url = strip_invisible(url)
    if url.isascii() and " " not in url:
        return url
    parts = urlsplit(url)
    netloc = parts.netloc
    if not netloc.isascii():
        host = parts.hostname or ""
        try:
            encoded = httpx.URL(scheme="http", host=host).raw_host.decode()
        except httpx.InvalidURL as error:
            raise ValueError(f"the host {host[:100]!r} is not a host name ({error})") from None
        before, at, after = netloc.rpartition("@")
        port = f":{parts.port}" if parts.port is not None else ""
        netloc = f"{before}{at}{encoded}{port}" if after else netloc
    path, query = (quote(LONE_PERCENT.sub("%25", part), safe=URL_CHARACTERS) for part in (parts.path, parts.query))
    return parts._replace(netloc=netloc, path=path, query=query, fragment="").geturl()


def check_url(url: str, *, allow_private: bool, field: str = "url", like: str = "https://example.com/hook") -> Target:
    """Resolve the URL's host and check its addresses; `like` is an example for remedies.

    Raises InvalidRequest naming `field`, FetchFailed if the host has no address.
    """

    def refuse(detail: str, remedy: str) -> InvalidRequest:
        return InvalidRequest([FieldError(field=field, detail=detail, remedy=remedy)])

    try:
        printable, url = url.isprintable(), ascii_url(url)
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise refuse(f"is not a URL: {error}", f"write it like {like}") from None
    if parts.scheme not in {"http", "https"} or not host or len(url) > MAX_URL_CHARS or not printable:
        raise refuse("is not an http or https URL", f"write it like {like}")
    if parts.username is not None or parts.password is not None:
        raise refuse("carries a user name or password", "leave it out")
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
    """Send a request to the checked address. A redirect is returned like any other response. Raises FetchFailed.

    The whole request takes at most `timeout_s` seconds, however slowly the server sends its response.
    """
    parts = urlsplit(target.url)
    literal = f"[{target.address}]" if ":" in target.address else target.address
    pinned = parts._replace(netloc=f"{literal}:{target.port}", fragment="").geturl()
    host = f"[{target.host}]" if ":" in target.host else target.host
    named = host if target.port in {80, 443} else f"{host}:{target.port}"
    body = bytearray()
    certificates = _certificates() if parts.scheme == "https" else False
    connection = _PinnedConnection()
    timer = threading.Timer(timeout_s, connection.abort)
    timer.daemon = True
    timer.start()
    try:
        with (
            httpx.Client(trust_env=False, follow_redirects=False, timeout=timeout_s, verify=certificates) as client,
            client.stream(
                method,
                pinned,
                content=content or None,
                headers={"Host": named, "User-Agent": "imagefarm", "Accept-Encoding": "identity", **(headers or {})},
                extensions={"sni_hostname": target.host, "trace": connection.trace},
            ) as response,
        ):
            for piece in response.iter_raw(16 * 1024):
                body += piece
                if len(body) > max_bytes:
                    raise FetchFailed(f"the response is larger than {max_bytes} bytes")
            if connection.is_aborted:
                raise FetchFailed(f"no complete response within {timeout_s:g} s")
            kind, retry_after = response.headers.get("Content-Type", ""), response.headers.get("Retry-After")
            return Fetched(response.status_code, bytes(body), kind, retry_after)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        if connection.is_aborted:
            raise FetchFailed(f"no complete response within {timeout_s:g} s") from None
        raise FetchFailed(f"{type(error).__name__}: {str(error)[:200]}") from None
    finally:
        timer.cancel()


class _PinnedConnection:
    """The connection of one request. Another thread can abort it, because a read timeout starts again with every byte."""

    def __init__(self) -> None:
        self.is_aborted = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Trace callback of httpcore."""
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket")
            if self.is_aborted:
                self.abort()

    def abort(self) -> None:
        with self._lock:
            self.is_aborted = True
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def fetch_image(url: str, settings: Settings, *, field: str, patience_s: float = 2 * MAX_WAIT_S) -> bytes:
    """Fetch the image at a caller's URL without checking its content. A busy server is tried three times.

    Pauses take at most `patience_s` seconds in total. Raises InvalidRequest naming `field`.
    """
    remedy = "check the URL, or upload the picture as an asset"
    try:
        target = check_url(url, allow_private=settings.allow_private_urls, field=field, like="https://example.com/mug.jpg")
        got = _fetch_patiently(target, settings, patience_s)
    except FetchFailed as error:
        raise InvalidRequest([FieldError(field=field, detail=f"cannot be fetched: {error.detail}", remedy=remedy)]) from None
    if 300 <= got.status < 400:
        remedy = "give the URL that it leads to"
        raise InvalidRequest([FieldError(field=field, detail=f"leads elsewhere (it answered {got.status})", remedy=remedy)])
    if got.status in BUSY:
        asks = f", and asks to wait {got.retry_after[:40]} s" if got.retry_after else ""
        detail = f"cannot be fetched: its server is busy (it answered {got.status}{asks})"
        raise InvalidRequest([FieldError(field=field, detail=detail, remedy="try later, or send the pictures in a ZIP")])
    if got.status != 200:
        raise InvalidRequest([FieldError(field=field, detail=f"cannot be fetched: it answered {got.status}", remedy=remedy)])
    if (page := web_page(got)) is not None:
        remedy = "give the URL of the picture itself; a sign-in page is not a picture"
        raise InvalidRequest([FieldError(field=field, detail=f"is a web page{page}, not a picture", remedy=remedy)])
    return got.body


def _fetch_patiently(target: Target, settings: Settings, patience_s: float) -> Fetched:
    for number in range(TRIES):
        got = fetch(target, timeout_s=settings.fetch_timeout_s, max_bytes=settings.max_asset_bytes, headers={"Accept": "image/*"})
        if got.status not in BUSY or number == TRIES - 1:
            break
        wait_s = _asked_wait_s(got.retry_after)
        wait_s = FIRST_WAIT_S * 2**number if wait_s is None else wait_s
        if wait_s > min(MAX_WAIT_S, patience_s):
            break
        patience_s -= wait_s
        time.sleep(wait_s)
    return got


def _asked_wait_s(retry_after: str | None) -> float | None:
    """The pause that Retry-After asks for, in seconds; the header contains seconds or a date."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def web_page(got: Fetched) -> str | None:
    """The title of the web page that was fetched, perhaps empty; None if the response is not a web page."""
    begins = got.body[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not got.content_type.lower().startswith("text/html") and not begins.startswith((b"<!doctype html", b"<html")):
        return None
    title = TITLE.search(got.body[: 64 * 1024])
    if title is None:
        return ""
    text = html.unescape(title[1].decode("utf-8", "replace"))
    return f" ({' '.join(text.split())[:100]!r})"
