"""Base classes of all bodies, queries and responses of the API, and the format of times."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


class Query(BaseModel):
    """The query string of a route. An unknown parameter is an error that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Body(BaseModel):
    """The JSON body of a route. An unknown field is an error that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ResponseModel(BaseModel):
    """The JSON response of a route."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


def rfc3339(seconds: float) -> str:
    """Format seconds since 1970 as a UTC time with milliseconds: `2026-11-21T08:30:00.000Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(value: Any) -> float:
    """Parse an RFC 3339 time to seconds since 1970. Raises ValueError for anything else."""
    if not isinstance(value, str) or not RFC3339.fullmatch(value):
        raise ValueError("is not a time; write it like 2026-11-21T08:30:00Z (a + in a URL must be sent as %2B)")
    try:
        # Python reads at most six digits of a fraction; RFC 3339 allows more
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value.upper()))
    except ValueError as error:
        raise ValueError(f"is not a time: {error}; write it like 2026-11-21T08:30:00Z") from None
    return moment.timestamp()


Time = Annotated[
    float,
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
"""A time in a response: a float of seconds since 1970 in Python, RFC 3339 in UTC in JSON."""
QueryTime = Annotated[float, BeforeValidator(seconds_of), WithJsonSchema({"type": "string", "format": "date-time"})]
"""A time in a query: RFC 3339 in the URL, a float of seconds since 1970 in Python."""
