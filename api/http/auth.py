"""Authentication by API key, token or browser session, and the checks of the Host and Origin headers.

A farm with open access needs no credentials. Every web page that its user visits can reach an open farm on a loopback address:
such a page could resolve its own name to 127.0.0.1 (DNS rebinding) or post a form across origins. So an open farm accepts only
the host names of this machine, and the API refuses a change that a browser sends from another origin.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from flask import g, request

from api.http.context import AppContext
from api.http.request_limit import count_request
from imagefarm.auth import OPEN_CALLER, Caller, Scope, authenticate_key, is_loopback, is_open
from imagefarm.errors import Forbidden, RequestError, Unauthorized
from imagefarm.tokens import looks_like_token
from imagefarm.users import session_caller

HOST = re.compile(r"([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?")
SESSION_COOKIE = "imagefarm_session"
"""The cookie of a signed-in browser, hidden from scripts (HttpOnly). It names a session that the farm can end."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def authenticate(app_context: AppContext, *, counted: bool = True) -> Caller:
    """Return the caller of the current request, and count the request against the caller's limit unless `counted` is False.

    Raises Unauthorized for missing or invalid credentials, LimitExceeded when the caller is over its limit of requests.
    """
    g.needs_credentials = True
    try:
        caller = _caller(app_context)
    except Unauthorized:
        count_request(app_context.requests, None)
        raise
    if counted:
        count_request(app_context.requests, caller)
    return caller


def _caller(app_context: AppContext) -> Caller:
    header = request.headers.get("Authorization")
    if header is None:
        # set by the sign-in page; SameSite=Strict and `check_origin` keep other sites from using it
        session = session_caller(app_context.store, request.cookies.get(SESSION_COOKIE, ""), app_context.settings)
        if session is not None:
            return session
        if is_open(app_context.settings):
            return OPEN_CALLER
        raise Unauthorized("send a key: `Authorization: Bearer if_...` (make one with `imagefarm keys create`)")
    method, _, key = header.partition(" ")
    if method.lower() != "bearer" or not key.strip():
        raise Unauthorized("the Authorization header must read `Bearer if_...`")
    if app_context.tokens.file is not None and looks_like_token(key):
        return app_context.tokens.caller(key.strip())
    caller = authenticate_key(app_context.store, key.strip())
    if caller is None:
        raise Unauthorized("this key is unknown or revoked")
    return caller


def require(caller: Caller, scope: Scope) -> None:
    """Raise Forbidden unless the caller has the scope."""
    if not caller.has_scope(scope):
        raise Forbidden(f"this key lacks the scope {scope}; it has {', '.join(sorted(caller.scopes)) or 'none'}")


def check_host(app_context: AppContext) -> None:
    """Refuse a malformed Host header, and on an open farm that listens on loopback a name that is not this machine's.

    Raises RequestError, Forbidden.
    """
    host = request.headers.get("Host", "")
    if not HOST.fullmatch(host):
        raise RequestError("the Host header is missing or malformed", code="bad_host")
    settings = app_context.settings
    if settings.auth == "auto" and is_open(settings):
        name = (urlsplit(f"//{host}").hostname or "").lower()
        if not (is_loopback(name) or name.endswith(".localhost") or name == settings.host):
            raise Forbidden(
                f"an open farm accepts only the host localhost, not {name}; set IMAGEFARM_AUTH=keys (or open) for others"
            )


def check_origin(app_context: AppContext) -> None:
    """Refuse a change that a page of another origin sends with the browser's cookies or network access. Raises Forbidden."""
    if request.method in SAFE_METHODS or "Authorization" in request.headers:
        return
    origin = request.headers.get("Origin")
    cross = origin is not None and urlsplit(origin).netloc != request.headers.get("Host")
    site = request.headers.get("Sec-Fetch-Site")
    if cross or site in {"cross-site", "same-site"}:
        raise Forbidden("this farm refuses changes from pages of another origin")
    if origin is None and site is None and SESSION_COOKIE in request.cookies:
        # every browser sends Origin or Sec-Fetch-Site with a form; without them the page that sent it is unknown
        raise Forbidden("a browser session must send the Origin header with a change; programs send an API key instead")
