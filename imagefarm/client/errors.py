"""What can go wrong between a program and a farm.

ClientError
├── ConnectionFailedError     no answer: not running, wrong address, or the network
├── BusyError            429 or 503, and the retries are used up; `retry_after` says when to come back
├── AuthError          401 or 403
├── NotFoundError            404
├── RequestRefusedError      any other 4xx; `fields` names what to mend, and how
├── WaitTimeoutError       `wait` reached its timeout; the job goes on
└── JobFailedError           `wait(check=True)` met a job that failed or was cancelled
"""

from __future__ import annotations

from typing import Any

import httpx

from imagefarm.errors import FarmError, FieldError


class ClientError(FarmError):
    """Base of the client's errors. `problem` is the farm's own answer (RFC 9457), where there is one."""

    code = "client_error"

    def __init__(self, detail: str, *, status: int = 0, problem: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.problem = problem or {}

    @property
    def fields(self) -> list[FieldError]:
        """What was wrong with which field, and the remedy."""
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
    code = "connection_failed"


class BusyError(ClientError):
    code = "busy"

    @property
    def retry_after(self) -> float:
        """Seconds after which the farm asks to be tried again."""
        return float(self.problem.get("retry_after") or 0.0)


class AuthError(ClientError):
    code = "auth_failed"


class NotFoundError(ClientError):
    code = "not_found"


class RequestRefusedError(ClientError):
    code = "refused"


class WaitTimeoutError(ClientError):
    code = "wait_timeout"


class JobFailedError(ClientError):
    code = "job_failed"


def error_of(response: httpx.Response) -> ClientError:
    """The exception that an unsuccessful answer means."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    detail = str(problem.get("detail") or problem.get("title") or f"the farm answered {response.status_code}")
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
