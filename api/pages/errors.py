"""Errors as HTML pages for browsers. Programs get the same problem as JSON."""

from __future__ import annotations

from http import HTTPStatus

from flask import Flask, Response, request

from api.http.links import safe_path
from api.http.problems import Problem, as_json, register_error_renderer
from api.pages.rendering import page

NOT_PAGES = ("/api/", "/static/", "/problems/", "/healthz", "/readyz")


def init_app(app: Flask) -> None:
    """Answer a browser with a page that names the problem and the remedy."""
    register_error_renderer(app, "/", _render)


def _render(problem: Problem) -> Response:
    wants_html = request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    if request.path.startswith(NOT_PAGES) or not wants_html:
        return as_json(problem)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        return page("sign_in.html", ("", safe_path(request.path)), problem.status)
    return page("error.html", problem, problem.status)
