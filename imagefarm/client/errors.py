"""What can go wrong between a program and a farm.

ClientError
├── FarmUnreachable     no answer: not running, wrong address, or the network
├── FarmBusy            429 or 503, and the retries are used up; `retry_after` says when to come back
├── KeyRefused          401 or 403
├── NotThere            404
├── RequestRefused      any other 4xx; `fields` names what to mend, and how
├── WaitedTooLong       `wait` reached its timeout; the job goes on
└── JobFailed           `wait(check=True)` met a job that failed or was cancelled
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


class FarmUnreachable(ClientError):
    code = "unreachable"


class FarmBusy(ClientError):
    code = "busy"

    @property
    def retry_after(self) -> float:
        """Seconds after which the farm asks to be tried again."""
        return float(self.problem.get("retry_after") or 0.0)


class KeyRefused(ClientError):
    code = "key_refused"


class NotThere(ClientError):
    code = "not_there"


class RequestRefused(ClientError):
    code = "refused"


class WaitedTooLong(ClientError):
    code = "waited_too_long"


class JobFailed(ClientError):
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
            kind: type[ClientError] = KeyRefused
        case 404:
            kind = NotThere
        case 429 | 503:
            kind = FarmBusy
            problem.setdefault("retry_after", response.headers.get("Retry-After"))
        case status if status < 500:
            kind = RequestRefused
        case _:
            kind = ClientError
    return kind(detail, status=response.status_code, problem=problem)
