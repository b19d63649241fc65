"""The OpenAPI 3.1 document, generated from the registered routes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from api.http.problems import MEDIA, ProblemResponse
from api.http.request_limit import HEADERS
from api.http.routes import JSON, Route
from imagefarm.ids import PATTERN
from imagefarm.version import __version__

REF = "#/components/schemas/{model}"
REASONS = {
    200: "Success.",
    201: "Created.",
    202: "Accepted and stored.",
    204: "Success, without a body.",
    206: "The requested range of the file.",
    302: "Redirected.",
    304: "Not modified.",
    400: "The request is malformed.",
    401: "The API key is missing or invalid.",
    403: "The key lacks the scope.",
    404: "Not found, or it belongs to another tenant.",
    409: "The current state forbids this, or the first request with this Idempotency-Key still runs.",
    413: "The body is too large.",
    415: "The body has the wrong type.",
    416: "The range is outside the file.",
    422: "A field is wrong; the problem names it.",
    429: "A limit was reached; Retry-After has the seconds to wait.",
    503: "The farm or a part of it is unavailable or full; Retry-After has the seconds to wait.",
}
Json = dict[str, Any]
Names = dict[Any, Json]
"""References to schemas, by (model, mode)."""


def document(routes: list[Route]) -> Json:
    """Return the OpenAPI document of these routes."""
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(ProblemResponse, "serialization")]
    for route in routes:
        wanted += [(route.body, "validation")] if route.body else []
        wanted += [(route.response, "serialization")] if route.response else []
    names, definitions = models_json_schema(list(dict.fromkeys(wanted)), ref_template=REF)
    paths: Json = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, names)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "imagefarm",
            "version": __version__,
            "description": "A render farm for text-to-image diffusion. Errors are RFC 9457 problems that name the field; "
            "lists are paged by `next_cursor`; ids of other tenants are not found.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key, `if_...`"}},
        },
    }


def _operation(route: Route, names: Names) -> Json:
    summary, description = route.words
    operation: Json = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": summary,
        "description": description,
        "parameters": _parameters(route),
        "responses": _responses(route, names),
        "security": [],
    }
    if route.scope is not None:
        operation["security"] = [{"key": []}]
        operation["x-scope"] = str(route.scope)
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": names[route.body, "validation"]}}}
    elif route.consumes:
        operation["requestBody"] = {"required": True, "content": {media: _upload(media) for media in route.consumes}}
    return operation


def _upload(media: str) -> Json:
    if media == "multipart/form-data":
        return {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "contentMediaType": "application/octet-stream"}},
            }
        }
    return {"schema": {"type": "string"}} if media.startswith("text/") else {}


def _parameters(route: Route) -> list[Json]:
    found: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(name)} for name in route.path_names
    ]
    if route.query is not None:
        schema = route.query.model_json_schema(ref_template=REF)
        definitions = schema.get("$defs", {})
        required = schema.get("required", [])
        for name, part in schema.get("properties", {}).items():
            whole = _inlined(_without_null(part), definitions)
            parameter: Json = {"name": name, "in": "query", "required": name in required, "schema": whole}
            if text := whole.pop("description", part.get("description")):
                parameter["description"] = text
            found.append(parameter)
    for header in route.headers:
        found.append({"name": header.name, "in": "header", "description": header.description, "schema": header.schema})
    return found


def _path_schema(name: str) -> Json:
    return {"type": "string", "pattern": f"^{PATTERN.pattern}$"} if name.endswith("_id") else {"type": "string", "minLength": 1}


def _without_null(part: Json) -> Json:
    """Drop the null option: a query string cannot hold null, so an optional parameter is left out instead."""
    options = [option for option in part.get("anyOf", []) if option.get("type") != "null"]
    if len(options) != 1:
        return dict(part)
    rest = {key: value for key, value in part.items() if key not in {"anyOf", "default", "title"}}
    return {**options[0], **rest}


def _inlined(part: Any, definitions: Json) -> Any:
    if isinstance(part, dict):
        if reference := part.get("$ref"):
            return _inlined(definitions[reference.rsplit("/", 1)[1]], definitions)
        return {key: _inlined(value, definitions) for key, value in part.items() if key != "title"}
    return [_inlined(item, definitions) for item in part] if isinstance(part, list) else part


def _responses(route: Route, names: Names) -> Json:
    content: Json = {}
    if route.response is not None:
        content = {JSON: {"schema": names[route.response, "serialization"]}}
    elif route.media != JSON:
        content = {route.media: {}}
    responses: Json = {}
    for status in (route.status, *route.extra_statuses):
        responses[str(status)] = {"description": REASONS[status]} | (
            {"content": content} if content and status not in {204, 304} else {}
        )
        if route.is_counted and route.path.startswith("/api/"):
            responses[str(status)]["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in HEADERS}
    problem = {MEDIA: {"schema": names[ProblemResponse, "serialization"]}}
    for status in sorted(expected_errors(route) - {route.status, *route.extra_statuses}):
        responses[str(status)] = {"description": REASONS[status], "content": problem}
    return responses


def expected_errors(route: Route) -> set[int]:
    """The error statuses that follow from a route's declaration."""
    statuses = {400, 422, 503, *route.errors}
    if route.scope is not None:
        statuses |= {401, 403}
    if route.is_counted or route.scope is not None:
        statuses.add(429)
    if route.path_names:
        statuses.add(404)
    if route.body is not None or route.consumes:
        statuses |= {413, 415}
    if "idempotency" in route.parameters:
        statuses |= {409, 413}
    return statuses
