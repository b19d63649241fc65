"""Every request: a request id, the checks of host and origin, security headers, and one structured log line."""

from __future__ import annotations

import re
import time

import structlog
from flask import Flask, Response, g, request

from api.http.auth import check_host, check_origin
from api.http.context import current_app_context
from imagefarm.ids import new_id
from imagefarm.logs import get_logger

log = get_logger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{8,64}")
QUIET = frozenset({"/healthz", "/readyz"})
FOR_STREAMS = "imagefarm.for_streams"
"""Key in the WSGI environment of a page that is rendered for live streams, not for a request."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Headers of every response, unless its handler set them."""


def init_app(app: Flask) -> None:
    """Add the checks, headers and log line to every request of the application."""
    app.before_request(_before)
    app.after_request(_after)


def _before() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else new_id("req")
    g.began = time.perf_counter()
    structlog.contextvars.clear_contextvars()  # a server thread serves one request after another
    structlog.contextvars.bind_contextvars(service="api", request_id=g.request_id)
    app_context = current_app_context()
    check_host(app_context)
    check_origin(app_context)


def _after(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if g.get("needs_credentials") and not response.cache_control.no_store:
        response.cache_control.public = False
        response.cache_control.private = True  # a shared cache must not hand it to somebody else
    response.headers["X-Request-ID"] = g.get("request_id", "")
    level = "debug" if request.path in QUIET or FOR_STREAMS in request.environ else "info"
    getattr(log, level)(
        "request",
        method=request.method,
        path=request.path,  # without the query string, which may hold prompts
        status=response.status_code,
        ms=round(1000 * (time.perf_counter() - g.get("began", time.perf_counter())), 1),
    )
    return response
