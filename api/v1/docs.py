"""The OpenAPI document, and a documentation page rendered from it on the server. The page loads nothing from other sites."""

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
    "unknown_model": "The catalogue has no such model; the remedy lists the known ones.",
    "unauthorized": "The API key is missing, unknown or revoked.",
    "forbidden": "The key lacks a scope, or a page of another origin sent the request.",
    "not_found": "Not found, or it belongs to another tenant.",
    "file_missing": "The image is known, but its file is missing from storage.",
    "conflict": "The current state of the job, batch or other resource forbids this.",
    "idempotency_key_reused": "The Idempotency-Key was used before with another request.",
    "still_running": "The first request with this Idempotency-Key is still running.",
    "limit_exceeded": "A limit was reached: `limit` is its name, `value` its value, `retry_after` the seconds to wait.",
    "too_large": "The body is over its limit.",
    "unsupported_media_type": "The body has the wrong Content-Type, character set or coding.",
    "unavailable": "The farm or a part of it is unavailable; Retry-After has the seconds to wait.",
    "internal": "An unexpected error; the farm's log has it under the request's id.",
}
"""Meanings of the problem types."""
POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def init_app(app: Flask) -> None:
    """Add the documentation page's filters."""
    app.jinja_env.filters["type_words"] = type_words
    app.jinja_env.filters["prose"] = prose


@routes.get("/api/v1/openapi.json", scope=None)
def openapi() -> Response:
    """Get the OpenAPI 3.1 document of this API."""
    text = _once("openapi", lambda: json.dumps(document(routes_of(current_app)), ensure_ascii=False))
    return Response(text, content_type="application/json", headers={"Cache-Control": "no-cache"})


@routes.get("/docs", scope=None, media="text/html")
def docs() -> Response:
    """Read the documentation of this API, offline."""
    page = _once("docs", lambda: render_template("docs.html", api=document(routes_of(current_app)), problems=PROBLEMS))
    return Response(page, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY})


@routes.get("/problems/{code}", scope=None, media="text/html", status=302)
def explain_problem(code: str) -> Response:
    """Go to the explanation of a problem type."""
    anchor = f"problem-{code}" if code in PROBLEMS else "problems"
    return redirect(f"/docs#{anchor}", Response=Response)  # type: ignore[return-value]


def _once(name: str, make: Callable[[], str]) -> str:
    """Return a text that is made once per process: the route is open to all, and making the text is slow."""
    kept: dict[str, str] = current_app.extensions.setdefault("imagefarm.docs", {})
    if name not in kept:
        kept[name] = make()
    return kept[name]


def type_words(schema: dict[str, Any]) -> str:
    """Describe a JSON Schema in a few words: `integer, 1 to 64`."""
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
    """Convert a docstring to HTML: paragraphs, and `code` for backticks."""
    paragraphs = (re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(part))) for part in text.split("\n\n") if part.strip())
    return Markup("".join(f"<p>{part}</p>" for part in paragraphs))  # noqa: S704 - every part was escaped above
