"""The errors of the client.

ClientError
├── ConnectionFailedError   no response: not running, wrong address, or the network
├── BusyError               429 or 503, and the retries are used up; `retry_after` is in seconds
├── AuthError               401 or 403
├── NotFoundError           404
├── RequestRefusedError     any other 4xx; `fields` names each wrong field and its remedy
├── WaitTimeoutError        a wait reached its timeout; the job continues
└── JobFailedError          `jobs.wait(check=True)` met a job that failed or was cancelled
"""

from __future__ import annotations

from typing import Any

import httpx

from imagefarm.errors import FarmError, FieldError


class ClientError(FarmError):
    """Base of the client's errors. `problem` is the farm's problem document (RFC 9457), if it sent one."""

    code = "client_error"

    def __init__(self, detail: str, *, status: int = 0, problem: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.problem = problem or {}

    @property
    def fields(self) -> list[FieldError]:
        """Each wrong field, with its remedy."""
        return [
            FieldError(
                field=str(error.get("field", "")),
                detail=str(error.get("detail", "")),
                remedy=str(error.get("remedy", "")),
                row=error.get("row"),
            )
            for error in self.problem.get("errors", [])
        ]


class ConnectionFailedError(ClientError):
    """The farm did not respond: it is not running, the address is wrong, or the network failed."""

    code = "connection_failed"


class BusyError(ClientError):
    """The farm is busy (429, 503), and the retries are used up."""

    code = "busy"

    @property
    def retry_after(self) -> float:
        """Seconds to wait before the next request."""
        return float(self.problem.get("retry_after") or 0.0)


class AuthError(ClientError):
    """The key is missing, unknown, or lacks a scope (401, 403)."""

    code = "auth_failed"


class NotFoundError(ClientError):
    """The farm has no such thing, or this key may not see it (404)."""

    code = "not_found"


class RequestRefusedError(ClientError):
    """The request is wrong (any other 4xx); `fields` names each wrong field and its remedy."""

    code = "refused"


class WaitTimeoutError(ClientError):
    """A wait reached its timeout. The job continues."""

    code = "wait_timeout"


class JobFailedError(ClientError):
    """A job that was waited for with `check=True` failed or was cancelled."""

    code = "job_failed"


def error_of(response: httpx.Response) -> ClientError:
    """The exception for an unsuccessful response."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    detail = str(problem.get("detail") or problem.get("title") or f"the farm responded {response.status_code}")
    match response.status_code:
        case 401 | 403:
            kind: type[ClientError] = AuthError
        case 404:
            kind = NotFoundError
        case 429 | 503:
            kind = BusyError
            problem.setdefault("retry_after", response.headers.get("Retry-After"))
        case status if status < 500:
            kind = RequestRefusedError
        case _:
            kind = ClientError
    return kind(detail, status=response.status_code, problem=problem)
