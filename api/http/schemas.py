"""What all bodies, queries and answers of the API share: strictness, and how times look."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


class Query(BaseModel):
    """The query string of a route. A parameter it does not know is refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Body(BaseModel):
    """The JSON body of a route. A field it does not know is refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ResponseModel(BaseModel):
    """What a route answers, as JSON."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


def rfc3339(seconds: float) -> str:
    """Seconds since 1970 as a UTC time with milliseconds: `2026-11-21T08:30:00.000Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(value: Any) -> float:
    """Seconds since 1970 of an RFC 3339 time; raise ValueError for anything else."""
    if not isinstance(value, str) or not RFC3339.fullmatch(value):
        raise ValueError("is not a time; write it like 2026-11-21T08:30:00Z (a + in a URL must be sent as %2B)")
    try:
        # to microseconds: more digits are allowed but mean nothing here
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value.upper()))
    except ValueError as error:
        raise ValueError(f"is not a time: {error}; write it like 2026-11-21T08:30:00Z") from None
    return moment.timestamp()


Time = Annotated[
    float,
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
"""A time in an answer: seconds since 1970 inside, RFC 3339 in UTC outside."""
QueryTime = Annotated[float, BeforeValidator(seconds_of), WithJsonSchema({"type": "string", "format": "date-time"})]
"""A time in a query: RFC 3339 outside, seconds since 1970 inside."""
