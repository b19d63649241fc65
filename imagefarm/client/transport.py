"""One request to the farm: repeated when the farm is busy or out of reach, never when repeating could do something twice."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from imagefarm.client.errors import BusyError, ConnectionFailedError, error_of

API = "/api/v1"
BUSY = frozenset({429, 503})
FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 30.0
THIS_MACHINE = frozenset({"127.0.0.1", "::1", "localhost"})
REPEATABLE = frozenset({"GET", "HEAD", "DELETE"})


class Transport:
    """Sends requests to the farm at `url`, at most `retries` times more than once.

    A POST is repeated only with an Idempotency-Key, or when the farm refused it before doing anything (429, 503) or was not
    reached at all.
    """

    def __init__(
        self, url: str, key: str | None, *, timeout_s: float, retries: int, transport: httpx.BaseTransport | None
    ) -> None:
        self.url = url.rstrip("/")
        self.retries = retries
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0)),
            trust_env=httpx.URL(self.url).host not in THIS_MACHINE,  # a proxy cannot reach this machine's own address
            transport=transport,
        )

    def close(self) -> None:
        self._http.close()

    def json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send and return the answer's JSON object; raise the ClientError that an unsuccessful answer means."""
        response: dict[str, Any] = self.send(method, path, **options).json()
        return response

    def send(self, method: str, path: str, *, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        """Send; raise the ClientError that an unsuccessful answer means. Options are httpx's."""
        may_repeat = method in REPEATABLE or "Idempotency-Key" in (headers or {})
        for attempt in range(self.retries + 1):
            last = attempt == self.retries
            try:
                response = self._http.request(method, path, headers=headers, **options)
            except httpx.TransportError as error:
                never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if last or not (may_repeat or never_sent):
                    raise ConnectionFailedError(
                        f"no answer from {self.url}: {error or type(error).__name__}; is the farm running?"
                    ) from None
                _pause(attempt, None)
                continue
            if response.is_success:
                return response
            failure = error_of(response)
            if last or response.status_code not in BUSY:
                raise failure
            _pause(attempt, failure.retry_after if isinstance(failure, BusyError) else None)
        raise AssertionError("unreachable: the last attempt returns or raises")

    @contextmanager
    def stream(self, path: str) -> Iterator[httpx.Response]:
        """A GET whose body is read bit by bit; raise the ClientError that an unsuccessful answer means."""
        try:
            with self._http.stream("GET", path) as response:
                if not response.is_success:
                    response.read()
                    raise error_of(response)
                yield response
        except httpx.TransportError as error:
            raise ConnectionFailedError(f"{self.url} broke off: {error or type(error).__name__}") from None

    def save(self, path: str, file: Path) -> Path:
        """Write the answer to a GET to `file`, whole or not at all."""
        part = file.with_name(file.name + ".part")
        with self.stream(path) as response, part.open("wb") as out:
            for chunk in response.iter_bytes():
                out.write(chunk)
        return part.replace(file)


def _pause(attempt: int, retry_after: float | None) -> None:
    """Wait as long as the farm asks, else twice as long each time; with jitter, so that callers do not come back together."""
    wanted = retry_after if retry_after else FIRST_PAUSE_S * 2**attempt
    time.sleep(min(wanted, MAX_PAUSE_S) * random.uniform(1.0, 1.2))  # noqa: S311 - jitter, not secrecy
