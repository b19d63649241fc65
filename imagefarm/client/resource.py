"""A resource of the client, such as `farm.jobs`. Each operation is defined once and serves both clients.

`submit = Operation(submit_job)` makes `farm.jobs.submit(...)` return a Job on a Client and an awaitable of a Job on an
AsyncClient.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from imagefarm.client.pages import Pages
from imagefarm.client.request import Steps
from imagefarm.client.transport import AsyncTransport, SyncTransport

P = ParamSpec("P")
T = TypeVar("T")
TransportT = TypeVar("TransportT", bound=SyncTransport | AsyncTransport)


class Resource(Generic[TransportT]):
    """A group of operations on one transport."""

    def __init__(self, transport: TransportT) -> None:
        self._transport = transport

    @property
    def transport(self) -> TransportT:
        """The transport that performs the operations' steps."""
        return self._transport


class Operation(Generic[P, T]):
    """A method of both clients, made from a generator function of steps."""

    def __init__(self, steps: Callable[P, Steps[T]]) -> None:
        self.steps = steps
        self.__doc__ = steps.__doc__

    @overload
    def __get__(self, resource: None, owner: type) -> Self: ...
    @overload
    def __get__(self, resource: Resource[SyncTransport], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, resource: Resource[AsyncTransport], owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, resource: Resource[Any] | None, owner: type) -> Any:
        if resource is None:
            return self

        @wraps(self.steps)
        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return resource.transport.run(self.steps(*args, **kwargs))

        return call


class Listing(Generic[P, T]):
    """A list method of both clients, made from a function that returns Pages: an iterator, or an asynchronous iterator."""

    def __init__(self, pages: Callable[P, Pages[T]]) -> None:
        self.pages = pages
        self.__doc__ = pages.__doc__

    @overload
    def __get__(self, resource: None, owner: type) -> Self: ...
    @overload
    def __get__(self, resource: Resource[SyncTransport], owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, resource: Resource[AsyncTransport], owner: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, resource: Resource[Any] | None, owner: type) -> Any:
        if resource is None:
            return self

        @wraps(self.pages)
        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            return resource.transport.items(self.pages(*args, **kwargs))

        return call
