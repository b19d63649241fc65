"""The steps of a client operation, as values. They need no network and no waiting, and serve both clients.

An operation is a generator of steps. The transport performs each step and sends its result back into the generator:

```python
def get_job(job: Job | str) -> Steps[Job]:
    return Job.model_validate((yield get(f"/jobs/{id_of(job)}")))
```
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, Generic, Literal, TypeAlias, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)

API = "/api/v1"
REPEATABLE = frozenset({"GET", "HEAD", "DELETE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to the farm. Its result is the response's JSON, or with `reads="bytes"` its body."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    content: bytes | None = None
    files: Mapping[str, tuple[str, IO[bytes], str]] | None = None
    timeout_s: float | None = None
    """Seconds to wait for the response; None is the client's own timeout."""
    reads: Literal["json", "bytes"] = "json"

    @property
    def may_repeat(self) -> bool:
        """True if the request can be repeated after its response was lost, because the farm executes it once."""
        return self.method in REPEATABLE or "Idempotency-Key" in self.headers


@dataclass(frozen=True, slots=True)
class Exchange:
    """Send a request once. The result is an httpx.Response, or the httpx.TransportError of the failure."""

    request: Request


@dataclass(frozen=True, slots=True)
class Download:
    """Write the body of a GET into an open file."""

    path: str
    into: BinaryIO


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for this number of seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class FileWork:
    """Read or write files; the asynchronous client does it in a thread. The result is the call's return value."""

    call: Callable[[], Any]


Step: TypeAlias = Request | Exchange | Download | Pause | FileWork
Steps: TypeAlias = Generator[Step, Any, T]


class Run(Generic[T]):
    """One run of an operation. Call `next_step` until it returns None, each time with the last step's `result` set."""

    returned: T
    """The operation's return value, after the last step."""

    def __init__(self, steps: Steps[T]) -> None:
        self._steps = steps
        self.result: Any = None

    def __enter__(self) -> None:
        """Close the steps after the block, so that their files are closed when a step fails."""

    def __exit__(self, *_: object) -> None:
        self._steps.close()

    def next_step(self) -> Step | None:
        """The next step to perform; None after the last."""
        try:
            return self._steps.send(self.result)
        except StopIteration as end:
            self.returned = end.value
            return None


def get(path: str, **params: Any) -> Request:
    """A GET below /api/v1; parameters that are None are left out."""
    return Request(method="GET", path=API + path, params=given(params))


def post(path: str, json: Any = None, *, headers: Mapping[str, str] | None = None) -> Request:
    """A POST of JSON below /api/v1."""
    return Request(method="POST", path=API + path, json=json, headers=headers or {})


def ask(kind: type[ModelT], request: Request) -> Steps[ModelT]:
    """Send a request; its response as a value of `kind`."""
    return kind.model_validate((yield request))


def ask_all(kind: type[ModelT], request: Request) -> Steps[Sequence[ModelT]]:
    """Send a request; the items of its response as values of `kind`."""
    return [kind.model_validate(item) for item in (yield request)["items"]]


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not None: None is the farm's default."""
    return {name: value for name, value in fields.items() if value is not None}


def segment(text: str) -> str:
    """A name as one segment of a URL path."""
    return quote(text, safe="")
