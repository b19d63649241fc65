"""The registry of routes: one declaration serves routing, validation, authorisation and the OpenAPI document.

```
routes = Routes(tag="jobs")

@routes.get("/api/v1/jobs/{job_id}", scope=Scope.READ, response=JobResponse)
def get_job(app_context: AppContext, caller: Caller, job_id: str) -> JobResponse:
    \"\"\"Get a job.\"\"\"
```

The names of a handler's parameters select its arguments: `app_context`, `caller`, `query` and `body` (validated models; the
annotation names the model), `idempotency`, and the names in its path (a name `..._id` matches only ids). The first line of the
docstring is the route's summary, the rest its description. A handler returns a model, a `Reply` (model, status, headers) or a
Flask response (files, streams).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast, get_origin, get_type_hints

from flask import Flask, Response, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.routing import BaseConverter

from api.http import strict_json
from api.http.auth import authenticate, require
from api.http.context import AppContext, current_app_context
from api.http.field_errors import field_errors
from api.http.idempotency_key import read_key
from api.http.limit_errors import TooLarge
from api.http.request_limit import count_request
from imagefarm.auth import Caller, Scope
from imagefarm.errors import FieldError, InvalidRequest, NotFound, RequestError
from imagefarm.ids import PATTERN
from imagefarm.settings import Settings
from imagefarm.text import check_text

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
PROVIDED = frozenset({"app_context", "caller", "query", "body", "idempotency"})
M = TypeVar("M", bound=BaseModel)
Handler = TypeVar("Handler", bound=Callable[..., "BaseModel | Reply | Response"])


@dataclass(frozen=True, slots=True)
class Reply:
    """A response model with its own status or headers."""

    response: BaseModel | None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderParameter:
    """A request header that a route accepts, for the OpenAPI document."""

    name: str
    description: str
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})


PREFER = HeaderParameter(
    name="Prefer",
    description="`wait=N`: respond when the job has ended, after N seconds at most (RFC 7240).",
    schema={"type": "string", "examples": ["wait=30"]},
)
IDEMPOTENCY_KEY = HeaderParameter(
    name="Idempotency-Key",
    description="A repeated key with the same body replays the first response. 1 to 255 printable ASCII characters.",
    schema={"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
)
LAST_EVENT_ID = HeaderParameter(
    name="Last-Event-ID",
    description="The id of the last event received; the stream continues after it.",
    schema={"type": "string", "pattern": "^[0-9]{1,18}$"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation: its method and path, the scope it needs, its input and its output."""

    method: str
    path: str
    handler: Callable[..., BaseModel | Reply | Response]
    tag: str
    scope: Scope | None
    query: type[BaseModel] | None
    body: type[BaseModel] | None
    response: type[BaseModel] | None
    media: str
    status: int
    extra_statuses: tuple[int, ...]
    errors: tuple[int, ...]
    headers: tuple[HeaderParameter, ...]
    consumes: tuple[str, ...]
    max_body: Callable[[Settings], int] | None
    parameters: tuple[str, ...]

    @property
    def name(self) -> str:
        """The operation's id in the OpenAPI document."""
        return self.handler.__name__

    @property
    def words(self) -> tuple[str, str]:
        """Summary and description: the first line and the rest of the handler's docstring."""
        summary, _, rest = inspect.cleandoc(self.handler.__doc__ or "").partition("\n")
        return summary.rstrip("."), rest.strip()

    @property
    def is_counted(self) -> bool:
        """Whether a request counts against the caller's limit. Health checks and reconnecting streams do not."""
        return self.tag != "health" and self.media != EVENT_STREAM

    @property
    def path_names(self) -> tuple[str, ...]:
        return tuple(re.findall(r"{(\w+)}", self.path))


class Routes:
    """The routes of one area. `tag` groups them in the documentation."""

    def __init__(self, *, tag: str) -> None:
        self.tag = tag
        self.routes: list[Route] = []

    def get(self, path: str, **declared: Any) -> Callable[[Handler], Handler]:
        """Declare a GET route; see `route` for the arguments."""
        return self.route("GET", path, **declared)

    def post(self, path: str, **declared: Any) -> Callable[[Handler], Handler]:
        """Declare a POST route; see `route` for the arguments."""
        return self.route("POST", path, **declared)

    def patch(self, path: str, **declared: Any) -> Callable[[Handler], Handler]:
        """Declare a PATCH route; see `route` for the arguments."""
        return self.route("PATCH", path, **declared)

    def delete(self, path: str, **declared: Any) -> Callable[[Handler], Handler]:
        """Declare a DELETE route; see `route` for the arguments."""
        return self.route("DELETE", path, **declared)

    def route(
        self,
        method: str,
        path: str,
        *,
        scope: Scope | None,
        response: type[BaseModel] | None = None,
        media: str = JSON,
        status: int = 200,
        extra_statuses: tuple[int, ...] = (),
        errors: tuple[int, ...] = (),
        headers: tuple[HeaderParameter, ...] = (),
        consumes: tuple[str, ...] = (),
        max_body: Callable[[Settings], int] | None = None,
    ) -> Callable[[Handler], Handler]:
        """Declare a route. Raises TypeError for a handler without a docstring or with an unknown parameter.

        `scope` None means open to all. `status` is the usual success, `extra_statuses` are others with the same response. `media`
        is the response's type if it is not JSON. `consumes` are the types of a body that the handler reads itself
        (`request.stream`); `max_body` bounds such a body in bytes instead of the setting `max_body_bytes`. `errors` are statuses
        beyond those that follow from the declaration.
        """

        def keep(handler: Handler) -> Handler:
            hints = get_type_hints(handler)
            parameters = tuple(inspect.signature(handler).parameters)
            unknown = set(parameters) - PROVIDED - set(re.findall(r"{(\w+)}", path))
            if unknown or not handler.__doc__:
                raise TypeError(
                    f"{handler.__name__}: cannot provide {sorted(unknown)}" if unknown else f"{handler.__name__}: no docstring"
                )
            self.routes.append(
                Route(
                    method=method,
                    path=path,
                    handler=handler,
                    tag=self.tag,
                    scope=scope,
                    query=hints.get("query"),
                    body=hints.get("body"),
                    response=response,
                    media=media,
                    status=status,
                    extra_statuses=extra_statuses,
                    errors=errors,
                    headers=headers + ((IDEMPOTENCY_KEY,) if "idempotency" in parameters else ()),
                    consumes=consumes,
                    max_body=max_body,
                    parameters=parameters,
                )
            )
            return handler

        return keep


def register(app: Flask, areas: Iterable[Routes]) -> None:
    """Add the routes of all areas to the application, and keep their list for the OpenAPI document."""
    kept: list[Route] = app.extensions.setdefault("imagefarm.routes", [])
    app.url_map.converters["id"] = IdConverter
    for area in areas:
        for route in area.routes:
            kept.append(route)
            app.add_url_rule(
                _rule(route.path),
                endpoint=route.name,
                view_func=_view(route),
                methods=[route.method],
                provide_automatic_options=False,
            )


class IdConverter(BaseConverter):
    """A path parameter that matches only ids. Every parameter named `..._id` uses it."""

    regex = PATTERN.pattern


def _rule(path: str) -> str:
    """The path in Flask's syntax: `/jobs/{job_id}` becomes `/jobs/<id:job_id>`."""
    return re.sub(r"{(\w+)}", lambda name: f"<id:{name[1]}>" if name[1].endswith("_id") else f"<{name[1]}>", path)


def routes_of(app: Flask) -> list[Route]:
    """Every registered route of the application."""
    return cast("list[Route]", app.extensions["imagefarm.routes"])


def _view(route: Route) -> Callable[..., Response]:
    def view(**path_values: str) -> Response:
        app_context = current_app_context()
        given: dict[str, Any] = {"app_context": app_context, **path_values}
        if route.scope is not None:
            caller = authenticate(app_context, counted=route.is_counted)
            require(caller, route.scope)
            given["caller"] = caller
        elif route.is_counted:
            count_request(app_context.requests, None)
        for value in path_values.values():
            _check_path(value)
        given["query"] = _query(route.query)
        if route.max_body is not None:
            request.max_content_length = route.max_body(app_context.settings)
        if route.consumes:
            _check_type(route.consumes)
        if route.body is not None:
            given["body"] = read_body(route.body)
        if "idempotency" in route.parameters:
            given["idempotency"] = read_key()
        return _response(route, route.handler(**{name: given[name] for name in route.parameters}))

    view.__name__ = route.name
    return view


def _response(route: Route, result: BaseModel | Reply | Response) -> Response:
    if isinstance(result, Response):
        return result
    reply = result if isinstance(result, Reply) else Reply(result)
    body = b"" if reply.response is None else reply.response.model_dump_json().encode()
    response = Response(body, reply.status or route.status, content_type=JSON if body else None)
    response.headers.update(reply.headers)
    return response


def _check_path(value: str) -> None:
    try:
        check_text(value)
    except ValueError:
        raise NotFound("not found: the path contains invalid characters") from None


def _query(model: type[BaseModel] | None) -> BaseModel | None:
    """Validate the query string. Without a model every parameter is an error."""
    errors: list[FieldError] = []
    values: dict[str, Any] = {}
    fields = {info.alias or name: info for name, info in model.model_fields.items()} if model else {}
    for name, given in request.args.lists():
        if not model:
            errors.append(FieldError(field=name[:100], detail="is not a known parameter", remedy="remove it"))
            continue
        is_list = name in fields and get_origin(fields[name].annotation) in {list, tuple}
        if len(given) > 1 and not is_list:
            errors.append(FieldError(field=name[:100], detail="is given more than once", remedy="give it once"))
        try:
            for text in (name, *given):
                check_text(text)
        except ValueError as error:
            detail, _, remedy = str(error).partition("; ")
            errors.append(FieldError(field=name[:100], detail=detail, remedy=remedy))
        values[name] = given if is_list else given[0]
    if errors:
        raise InvalidRequest(errors)
    return _validated(model, values, whole="query") if model else None


def read_body(model: type[M]) -> M:
    """Return the JSON body of the current request as a validated model. Raises RequestError, InvalidRequest."""
    _check_type((JSON,))
    return _validated(model, strict_json.parse(whole_body()), whole="body")


def whole_body() -> bytes:
    """Return the body of the current request. Raises TooLarge for a body above the request's limit."""
    try:
        data = request.get_data(cache=True)
    except RequestEntityTooLarge:
        raise too_large() from None
    if request.content_length is None and len(data) == request.max_content_length:
        raise too_large()  # werkzeug cuts a chunked body at the limit without an error
    return data


def whole_upload(part: str) -> bytes:
    """Return an uploaded file: the part `part` of a form, or the whole body if it is not a form.

    Raises TooLarge, and InvalidRequest for a missing or empty file.
    """
    if request.mimetype != "multipart/form-data":
        data = whole_body()
    else:
        try:
            file = request.files.get(part)
        except RequestEntityTooLarge:
            raise too_large() from None
        if file is None:
            raise InvalidRequest(
                [FieldError(field=part, detail="is missing from the form", remedy=f"send the file as part {part!r}")]
            )
        data = file.read()
    if not data:
        raise InvalidRequest([FieldError(field=part, detail="is empty", remedy="send a file")])
    return data


def too_large() -> TooLarge:
    """The error for a body above the limit of the current request."""
    return TooLarge(current_app_context().settings, request.max_content_length)


def _check_type(consumes: tuple[str, ...]) -> None:
    given = request.mimetype
    known = ", ".join(consumes)
    if given not in consumes and not (JSON in consumes and given.endswith("+json")):
        raise RequestError(
            f"Content-Type is {given[:80] or 'missing'!r}; send {known}", code="unsupported_media_type", status=415
        )
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if charset not in {"utf-8", "utf8", "us-ascii", "utf-8-sig"}:
        raise RequestError(f"charset {charset[:40]!r} is not supported; send UTF-8", code="unsupported_media_type", status=415)
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.lower() != "identity":
        raise RequestError(
            f"Content-Encoding {coding[:40]!r} is not supported; send the body uncompressed",
            code="unsupported_media_type",
            status=415,
        )


def _validated(model: type[M], value: Any, *, whole: str) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error, model, whole=whole)) from None


__all__ = [
    "IDEMPOTENCY_KEY",
    "JSON",
    "LAST_EVENT_ID",
    "PREFER",
    "AppContext",
    "Caller",
    "HeaderParameter",
    "Reply",
    "Route",
    "Routes",
    "Scope",
    "read_body",
    "register",
    "routes_of",
    "too_large",
    "whole_body",
    "whole_upload",
]
