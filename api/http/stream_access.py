"""Whether the caller of an open stream may still read it.

A request is authenticated once, but a stream stays open for hours. So its credentials are checked again: a revoked key, an ended
session or a disabled user closes the stream within `CHECK_S`, a token at its expiry.
"""

from __future__ import annotations

import io
import time
from typing import Any

from flask import Flask, current_app, request

from api.http.auth import authenticate, require
from api.http.context import app_context_of
from imagefarm.auth import Caller, Scope
from imagefarm.errors import Forbidden, Unauthorized
from imagefarm.store import DATABASE_AWAY

CHECK_S = 12.0
"""Interval of the checks. With the check's own time a stream ends within 15 s."""
KEPT = (
    "HTTP_HOST", "HTTP_COOKIE", "HTTP_AUTHORIZATION", "HTTP_ACCEPT_LANGUAGE",
    "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "REMOTE_ADDR", "wsgi.url_scheme",
)  # fmt: skip
"""What a stream keeps of the request that opened it."""


class StreamAccess:
    """The credentials of a stream, taken from the current request."""

    def __init__(self, caller: Caller) -> None:
        self._app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        kept: dict[str, Any] = {name: request.environ[name] for name in KEPT if name in request.environ}
        self._environ = kept | {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
        self._caller = caller
        self._next_at = time.monotonic() + CHECK_S

    @property
    def left_s(self) -> float:
        """Seconds until `holds` must be called again."""
        left = self._next_at - time.monotonic()
        if self._caller.expires_at is not None:
            left = min(left, self._caller.expires_at - time.time())
        return max(0.0, left)

    def holds(self) -> bool:
        """Return whether the stream may go on. Cheap until `CHECK_S` have passed since the last check."""
        if self._caller.expires_at is not None and time.time() >= self._caller.expires_at:
            return False
        if time.monotonic() < self._next_at:
            return True
        self._next_at = time.monotonic() + CHECK_S
        with self._app.request_context(self._environ | {"wsgi.input": io.BytesIO()}):
            try:
                caller = authenticate(app_context_of(self._app), counted=False)
                require(caller, Scope.READ)
            except (Unauthorized, Forbidden):
                return False
            except DATABASE_AWAY:
                return True  # an unavailable database revokes nothing
        return (caller.tenant_id, caller.scopes) == (self._caller.tenant_id, self._caller.scopes)
