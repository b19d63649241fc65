"""Errors as RFC 9457 problem responses that name the field, the fault and the remedy.

Every error response is built from a `Problem`. An interface with another error format (a compatible API, a page) registers its
own renderer for its paths; the renderer keeps the status and the meaning.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, request
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from api.http.limit_errors import TooLarge
from api.live.errors import TooManyStreams
from imagefarm.errors import FarmError, FieldError, InvalidRequest, LimitExceeded, Unavailable
from imagefarm.logs import get_logger
from imagefarm.messages import N_
from imagefarm.store.engine import is_transient

log = get_logger(__name__)

MEDIA = "application/problem+json"
KNOWN_CODES = {
    400: ("bad_request", N_("The request is not valid")),
    401: ("unauthorized", N_("A key is needed")),
    403: ("forbidden", N_("Not allowed")),
    404: ("not_found", N_("Not found")),
    405: ("method_not_allowed", N_("This address does not accept that method")),
    413: ("too_large", N_("The body is too large")),
    415: ("unsupported_media_type", N_("The body has the wrong type")),
    416: ("range_not_satisfiable", N_("The file has no such part")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One error response. `more` holds further members, such as the limit that was reached."""

    status: int
    code: str
    title: str
    detail: str
    instance: str = ""
    errors: list[FieldError] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)


class FieldProblem(BaseModel):
    """An error of one field. `row` is the row of a table, null elsewhere."""

    field: str
    detail: str
    remedy: str
    row: int | None = None


class ProblemResponse(BaseModel):
    """RFC 9457: what went wrong and how to fix the request."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FieldProblem] = []


ErrorRenderer = Callable[[Problem], Response]


def init_app(app: Flask) -> None:
    """Render every error of this application as a problem."""
    app.extensions["imagefarm.error_renderers"] = []
    app.register_error_handler(FarmError, lambda error: respond(problem_of(error)))
    app.register_error_handler(HTTPException, lambda error: respond(problem_of(error)))
    app.register_error_handler(Exception, lambda error: respond(problem_of(error)))


def register_error_renderer(app: Flask, prefix: str, render: ErrorRenderer) -> None:
    """Render the errors of all paths that start with `prefix` with `render`. The longest matching prefix wins."""
    app.extensions["imagefarm.error_renderers"].append((prefix, render))
    app.extensions["imagefarm.error_renderers"].sort(key=lambda item: -len(item[0]))


def problem_of(error: Exception) -> Problem:
    """Convert an error to a problem. An unexpected error is logged with its traceback and becomes a plain 500."""
    match error:
        case FarmError():
            return _farm_problem(error)
        case HTTPException():
            return _http_problem(error)
        case PoolTimeout():
            return _away("the database has no free connection")
        case DBAPIError() if is_transient(error):
            log.warning("database.unavailable", error=str(error.orig)[:200])
            return _away("the database is unavailable")
    log.error("request.failed", path=request.path, exc_info=error)
    return Problem(
        status=500,
        code="internal",
        title=N_("Internal error"),
        detail="an unexpected error; the farm's log has it under this request's id",
        instance=instance(),
    )


def respond(problem: Problem) -> Response:
    """Render the problem in the format of the request's path."""
    from flask import current_app

    for prefix, render in current_app.extensions["imagefarm.error_renderers"]:
        if request.path.startswith(prefix):
            response: Response = render(problem)
            response.headers.update(problem.headers)
            return response
    return as_json(problem)


def as_json(problem: Problem) -> Response:
    """Render the problem as application/problem+json."""
    members: dict[str, Any] = {
        "type": f"/problems/{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": problem.instance,
    }
    if problem.errors:
        members["errors"] = [
            {key: value for key, value in asdict(error).items() if value is not None} for error in problem.errors
        ]
    members |= problem.more
    # backslashreplace: a lone surrogate in a detail becomes its JSON escape and raises no second error
    body = json.dumps(members, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")
    response = Response(body, problem.status, content_type=MEDIA)
    response.headers.update(problem.headers)
    return response


def instance() -> str:
    """A URN for this request. It ends with the request id that all log lines of the request carry."""
    return f"urn:imagefarm:{g.get('request_id', 'req_unknown')}"


def _farm_problem(error: FarmError) -> Problem:
    headers: dict[str, str] = {}
    more: dict[str, Any] = {}
    if isinstance(error, LimitExceeded):
        more = {"limit": error.limit, "value": error.value, "retry_after": error.retry_after}
    elif isinstance(error, TooLarge | TooManyStreams):
        more = {"limit": error.limit, "value": error.value}
    if isinstance(error, LimitExceeded | Unavailable):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="imagefarm"'
    if error.status >= 500:
        log.warning("request.refused", code=error.code, detail=error.detail)
    return Problem(
        status=error.status,
        code=error.code,
        title=error.title,
        detail=error.detail,
        instance=instance(),
        errors=error.errors if isinstance(error, InvalidRequest) else [],
        headers=headers,
        more=more,
    )


def _http_problem(error: HTTPException) -> Problem:
    status = error.code or 500
    code, title = KNOWN_CODES.get(status, (f"http_{status}", error.name))
    headers = {
        name: value
        for name, value in error.get_headers(request.environ)
        if name.lower() not in {"content-type", "content-length"}
    }
    detail = {
        404: f"nothing is at {request.path[:200]}",
        405: f"{request.method[:20]} is not possible here; use {headers.get('Allow', 'another method')}",
    }.get(status, error.description or error.name)
    return Problem(status=status, code=code, title=title, detail=detail, instance=instance(), headers=headers)


def _away(detail: str) -> Problem:
    return Problem(
        status=503,
        code=Unavailable.code,
        title=Unavailable.title,
        detail=detail,
        instance=instance(),
        headers={"Retry-After": "5"},
    )
