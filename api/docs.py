"""The OpenAPI document and a page made from it on the server: nothing is loaded from elsewhere."""

from __future__ import annotations

import json
from typing import Any

from flask import Flask, Response, current_app, redirect, render_template

from api.openapi import document
from api.problems import KNOWN_CODES
from api.routes import Routes, routes_of

routes = Routes(tag="documentation")


def init_app(app: Flask) -> None:
    """Give the documentation page its filters."""
    app.jinja_env.filters["type_words"] = type_words


@routes.get("/api/v1/openapi.json", scope=None)
def openapi() -> Response:
    """Get this interface's OpenAPI 3.1 document."""
    text = json.dumps(document(routes_of(current_app)), ensure_ascii=False)
    return Response(text, content_type="application/json", headers={"Cache-Control": "no-cache"})


@routes.get("/docs", scope=None, media="text/html")
def docs() -> Response:
    """Read the documentation of this interface, offline."""
    page = render_template("docs.html", api=document(routes_of(current_app)), codes=KNOWN_CODES)
    policy = "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    return Response(page, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": policy})


@routes.get("/problems/{code}", scope=None, media="text/html", status=302)
def explain_problem(code: str) -> Response:
    """Go to the explanation of a problem's type."""
    return redirect("/docs#problems")  # type: ignore[return-value]


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
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        words += f", {'' if low is None else f'{low} '}{'to' if low is not None else 'at most'} {'any' if high is None else high}"
    if (most := schema.get("maxLength")) is not None:
        words += f", at most {most} characters"
    return words
