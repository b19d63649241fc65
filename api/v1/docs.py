"""The OpenAPI document and a page made from it on the server: nothing is loaded from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, current_app, render_template
from markupsafe import Markup, escape
from werkzeug.utils import redirect

from api.http.openapi import document
from api.http.routes import Routes, routes_of

routes = Routes(tag="documentation")

PROBLEMS = {
    "invalid_json": "The body is not JSON; the problem says at which line and column.",
    "invalid_request": "Fields are wrong; `errors` names each with its remedy.",
    "unknown_model": "No such model; the remedy lists the known ones.",
    "unauthorized": "No key was sent, or it is unknown or revoked.",
    "forbidden": "The key lacks a scope, or a page of another origin asked.",
    "not_found": "There is no such thing, or it is another tenant's.",
    "file_missing": "The picture is known, but its file is gone from storage.",
    "conflict": "The thing is in a state that forbids this.",
    "idempotency_key_reused": "The Idempotency-Key came before with another request.",
    "still_running": "The first request with this Idempotency-Key has no answer yet.",
    "limit_exceeded": "A limit was reached; `limit`, `value` and `retry_after` say which and until when.",
    "too_large": "The body is over its limit.",
    "unsupported_media_type": "The body has the wrong Content-Type, character set or coding.",
    "unavailable": "The farm or a part of it is away; Retry-After says when to come back.",
    "internal": "The farm made a mistake; it is in its log under the request's id.",
}
"""What the types of problems mean."""
POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def init_app(app: Flask) -> None:
    """Give the documentation page its filters."""
    app.jinja_env.filters["type_words"] = type_words
    app.jinja_env.filters["prose"] = prose


@routes.get("/api/v1/openapi.json", scope=None)
def openapi() -> Response:
    """Get this interface's OpenAPI 3.1 document."""
    text = _once("openapi", lambda: json.dumps(document(routes_of(current_app)), ensure_ascii=False))
    return Response(text, content_type="application/json", headers={"Cache-Control": "no-cache"})


@routes.get("/docs", scope=None, media="text/html")
def docs() -> Response:
    """Read the documentation of this interface, offline."""
    page = _once("docs", lambda: render_template("docs.html", api=document(routes_of(current_app)), problems=PROBLEMS))
    return Response(page, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY})


@routes.get("/problems/{code}", scope=None, media="text/html", status=302)
def explain_problem(code: str) -> Response:
    """Go to the explanation of a problem's type."""
    anchor = f"problem-{code}" if code in PROBLEMS else "problems"
    return redirect(f"/docs#{anchor}", Response=Response)  # type: ignore[return-value]


def _once(name: str, make: Callable[[], str]) -> str:
    """A text that stays the same for the life of the process: anybody may ask for it, and making it is slow."""
    kept: dict[str, str] = current_app.extensions.setdefault("imagefarm.docs", {})
    if name not in kept:
        kept[name] = make()
    return kept[name]


def type_words(schema: dict[str, Any]) -> str:
    """A JSON Schema in a few words: `integer, 1 to 64`."""
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[1])
    if options := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(type_words(option) for option in options))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return json.dumps(schema["const"])
    words = str(schema.get("format") or schema.get("type") or "anything")
    if words == "array":
        words = f"list of {type_words(schema.get('items', {}))}"
    return words + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    low, high, most = schema.get("minimum"), schema.get("maximum"), schema.get("maxLength")
    if low is not None and high is not None:
        return f", {low} to {high}"
    if low is not None or high is not None:
        return f", at least {low}" if high is None else f", at most {high}"
    return f", at most {most} characters" if most is not None else ""


def prose(text: str) -> Markup:
    """A docstring's text as HTML: paragraphs, and `code` between backticks."""
    paragraphs = (re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(part))) for part in text.split("\n\n") if part.strip())
    return Markup("".join(f"<p>{part}</p>" for part in paragraphs))  # noqa: S704 - every part was escaped above
