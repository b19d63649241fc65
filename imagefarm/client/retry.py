"""Retries: a request is sent again when the farm is busy or unreachable, if the farm cannot execute it twice."""

from __future__ import annotations

import random

import httpx

from imagefarm.client.errors import BusyError, ConnectionFailedError, error_of
from imagefarm.client.request import Exchange, Pause, Request, Steps

BUSY = frozenset({429, 503})
FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 30.0


def send_with_retries(request: Request, *, url: str, retries: int) -> Steps[httpx.Response]:
    """Send a request, with up to `retries` retries. Raises the ClientError of an unsuccessful response.

    A POST is retried only with an Idempotency-Key, after a refusal before any work (429, 503), or if no connection was made.
    """
    for attempt in range(retries + 1):
        last = attempt == retries
        outcome: httpx.Response | httpx.TransportError = yield Exchange(request)
        if isinstance(outcome, httpx.TransportError):
            never_sent = isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout)
            if last or not (request.may_repeat or never_sent):
                reason = str(outcome) or type(outcome).__name__
                raise ConnectionFailedError(f"no response from {url}: {reason}; is the farm running?") from None
            yield Pause(pause_s(attempt, None))
        elif outcome.is_success:
            return outcome
        else:
            failure = error_of(outcome)
            if last or outcome.status_code not in BUSY:
                raise failure
            yield Pause(pause_s(attempt, failure.retry_after if isinstance(failure, BusyError) else None))
    raise AssertionError("unreachable: the last attempt returns or raises")


def pause_s(attempt: int, retry_after: float | None) -> float:
    """Seconds before the next attempt: the farm's Retry-After, otherwise a pause that doubles at each attempt.

    The random part spreads the retries of clients that failed together.
    """
    wanted = retry_after or FIRST_PAUSE_S * 2**attempt
    return min(wanted, MAX_PAUSE_S) * random.uniform(1.0, 1.2)  # noqa: S311 - jitter, not secrecy
