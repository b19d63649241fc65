"""Every error the farm raises on purpose.

FarmError
├── RequestError            the caller can correct it (4xx)
│   ├── InvalidRequest      422: one or more fields are wrong
│   ├── UnknownModel        422: the catalogue has no such model
│   ├── NotFound            404
│   ├── Conflict            409: the thing is in a state that forbids this
│   ├── Unauthorized        401: no key, or not a valid one
│   ├── Forbidden           403
│   └── LimitExceeded       429: a quota or queue limit; says when to come back
├── Unavailable             503: a service behind the farm is away; says when to come back
├── ConfigurationError              the operator can correct it: one line and an exit code on the CLI
│   ├── DataFolderBusy
│   ├── PortInUse
│   ├── RedisNotFound
│   └── SchemaMismatch
├── LeaseLost               a write came from an attempt that no longer owns its job
└── RenderError             a job failed while it rendered; carries the reason stored with the job
"""

from __future__ import annotations

from dataclasses import dataclass

from imagefarm.messages import N_, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One error in one field of a request: the field, the problem and the remedy."""

    field: str
    detail: str
    remedy: str = ""
    row: int | None = None


class FieldValueError(ValueError):
    """Raised by a validator that refuses a value; carries the remedy. Pydantic handles it like any ValueError."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(f"{detail}; {remedy}")
        self.detail, self.remedy = detail, remedy


class FarmError(Exception):
    """Base of all errors raised on purpose. `code` is stable and machine-readable."""

    code = "farm_error"
    status = 500
    title = N_("The farm could not do this")

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class RequestError(FarmError):
    code = "bad_request"
    status = 400
    title = N_("The request is not valid")

    def __init__(self, detail: str, *, code: str | None = None, status: int | None = None) -> None:
        super().__init__(detail)
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status


class InvalidRequest(RequestError):
    """Fields of the request are wrong; `errors` names each with its remedy."""

    code = "invalid_request"
    status = 422

    def __init__(self, errors: list[FieldError], detail: str | None = None) -> None:
        first = errors[0]
        super().__init__(detail or f"{first.field}: {first.detail}")
        self.errors = errors


class UnknownModel(InvalidRequest):
    code = "unknown_model"
    title = N_("No such model")

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(
            [
                FieldError(
                    field="model",
                    detail=Message("no model is called %(name)s", name=repr(name)),
                    remedy=Message("use one of: %(known)s", known=", ".join(known)),
                )
            ]
        )


class NotFound(RequestError):
    code = "not_found"
    status = 404
    title = N_("Not found")


class Conflict(RequestError):
    code = "conflict"
    status = 409
    title = N_("Not possible in this state")


class Unauthorized(RequestError):
    code = "unauthorized"
    status = 401
    title = N_("A key is needed")


class Forbidden(RequestError):
    code = "forbidden"
    status = 403
    title = N_("Not allowed")


class LimitExceeded(RequestError):
    """A quota, cap or queue limit was met. `retry_after` is in seconds."""

    code = "limit_exceeded"
    status = 429
    title = N_("A limit was reached")

    def __init__(self, detail: str, *, limit: str, value: float, retry_after: float, status: int = 429) -> None:
        super().__init__(detail, status=status)
        self.limit = limit
        self.value = value
        self.retry_after = retry_after


class Unavailable(FarmError):
    """A service that the farm needs does not respond. `retry_after` is in seconds."""

    code = "unavailable"
    status = 503
    title = N_("The farm cannot answer now")

    def __init__(self, detail: str, *, retry_after: float = 5.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class ConfigurationError(FarmError):
    """The configuration prevents the farm from starting or running. The CLI prints `detail` and exits with `exit_code`."""

    code = "configuration"
    exit_code = 3


class DataFolderBusy(ConfigurationError):
    code = "data_folder_busy"
    exit_code = 4


class PortInUse(ConfigurationError):
    code = "port_in_use"
    exit_code = 5


class RedisNotFound(ConfigurationError):
    code = "redis_not_found"
    exit_code = 6


class SchemaMismatch(ConfigurationError):
    """The database was migrated by newer code, or was never migrated."""

    code = "schema_mismatch"
    exit_code = 7


class LeaseLost(FarmError):
    """The attempt that wrote no longer owns its job: the job was cancelled, its lease expired, or another worker claimed it."""

    code = "lease_lost"


class RenderError(FarmError):
    """A job failed while it rendered. `code` is stored as the job's error."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
