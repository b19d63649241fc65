"""Sign-in with name and password or with an API key, and sign-out. An open farm needs neither."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, redirect, request

from api.http import sign_in_throttle
from api.http.auth import SESSION_COOKIE
from api.http.context import AppContext, current_app_context
from api.http.links import safe_path
from api.pages.i18n import gettext
from api.pages.registry import Pages
from api.pages.rendering import page
from imagefarm.auth import authenticate_key, key_prefix
from imagefarm.errors import LimitExceeded
from imagefarm.logs import get_logger
from imagefarm.users import check_password, close_session, has_users, open_session

log = get_logger(__name__)
pages = Pages("pages_sign_in")


def init_app(app: Flask) -> None:
    """Give templates `signed_in()` and `with_passwords()`."""
    app.jinja_env.globals["signed_in"] = lambda: SESSION_COOKIE in request.cookies
    app.jinja_env.globals["with_passwords"] = lambda: has_users(current_app_context().store)


@pages.get("/sign-in", scope=None)
def sign_in_page() -> Response:
    """Show the form for a name and password, or a key."""
    return page("sign_in.html", ("", safe_path(request.args.get("next", ""))))


@pages.post("/sign-in", scope=None)
def sign_in_form(app_context: AppContext) -> Any:
    """Open a session if the password or key is valid, and go to the page that the reader asked for."""
    onward = safe_path(request.form.get("next", ""))
    key = request.form.get("key", "").strip()
    name, password = request.form.get("name", "").strip(), request.form.get("password", "")
    who = (app_context.redis, app_context.settings.redis_prefix, request.remote_addr or "", "" if key else name.lower()[:64])
    claimed = "".join(letter for letter in (key_prefix(key) if key else name) if letter.isprintable())[:64]
    try:
        sign_in_throttle.check(*who)
    except LimitExceeded:
        log.warning("sign_in.paused", address=request.remote_addr, name=claimed)
        raise
    if key:
        caller = authenticate_key(app_context.store, key)
        token = open_session(app_context.store, key_id=caller.key_id) if caller is not None else None
    else:
        user_id = check_password(app_context.store, name, password) if name and password else None
        token = open_session(app_context.store, user_id=user_id) if user_id is not None else None
    if token is None:
        sign_in_throttle.failed(*who)
        log.warning("sign_in.failed", address=request.remote_addr, name=claimed)
        complaint = gettext("This key is unknown or revoked.") if key else gettext("Wrong name or password.")
        return page("sign_in.html", (complaint, onward), 401)
    response = redirect(onward, 303)
    response.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=int(app_context.settings.session_max_age_s),
        httponly=True,
        samesite="Strict",
        secure=request.is_secure,
    )
    return response


@pages.post("/sign-out", scope=None)
def sign_out_form(app_context: AppContext) -> Any:
    """Close the session."""
    close_session(app_context.store, request.cookies.get(SESSION_COOKIE, ""))
    response = redirect("/sign-in", 303)
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="Strict")
    return response
