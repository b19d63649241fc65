"""Sign in with an API key, and out again: pages of a farm that asks for keys."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Flask, Response, redirect, request

from api.auth import SESSION_COOKIE
from api.context import current_farm
from api.pages.rendering import page
from imagefarm.auth import caller_of

pages = Blueprint("pages_sign_in", __name__)

STAYS_S = 30 * 86400


def init_app(app: Flask) -> None:
    """Give templates `signed_in()`."""
    app.jinja_env.globals["signed_in"] = lambda: SESSION_COOKIE in request.cookies


@pages.get("/sign-in")
def sign_in_page() -> Response:
    """Ask for a key."""
    return page("sign_in.html", ("", safe_path(request.args.get("next", ""))))


@pages.post("/sign-in")
def sign_in_form() -> Any:
    """Keep the key, if it is one, and go on to where the reader wanted to be."""
    onward = safe_path(request.form.get("next", ""))
    key = request.form.get("key", "").strip()
    if caller_of(current_farm().store, key) is None:
        return page("sign_in.html", ("This key is unknown or revoked.", onward), 401)
    answer = redirect(onward, 303)
    answer.set_cookie(SESSION_COOKIE, key, max_age=STAYS_S, httponly=True, samesite="Strict", secure=request.is_secure)
    return answer


@pages.post("/sign-out")
def sign_out_form() -> Any:
    """Forget the key."""
    answer = redirect("/sign-in", 303)
    answer.delete_cookie(SESSION_COOKIE, httponly=True, samesite="Strict")
    return answer


def safe_path(path: str) -> str:
    """`path` if it stays on this farm, else its front page."""
    inside = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if inside else "/"
