"""The two transports perform the steps of an operation: one with blocking calls, one on an event loop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, TypeVar

import httpx

from imagefarm.client.errors import ConnectionFailedError, error_of
from imagefarm.client.pages import Page, Pages
from imagefarm.client.request import Download, Exchange, FileWork, Pause, Request, Run, Step, Steps
from imagefarm.client.retry import send_with_retries

T = TypeVar("T")

THIS_MACHINE = frozenset({"127.0.0.1", "::1", "localhost"})


class SyncTransport:
    """Performs steps one after another; each blocks until it is done."""

    def __init__(
        self, url: str, key: str | None, *, timeout_s: float, retries: int, transport: httpx.BaseTransport | None
    ) -> None:
        self.url = url
        self.retries = retries
        self._http = httpx.Client(**_connection(url, key, timeout_s), transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def run(self, steps: Steps[T]) -> T:
        """Perform an operation's steps; return its result."""
        run = Run(steps)
        with run:
            while (step := run.next_step()) is not None:
                run.result = self._perform(step)
        return run.returned

    def items(self, pages: Pages[T]) -> Iterator[T]:
        """Every item of a list, fetched page by page."""
        page: Page[T] | None = None
        while (request := pages.after(page)) is not None:
            page = pages.read(self._perform(request))
            yield from page.items

    def _perform(self, step: Step) -> Any:
        match step:
            case Request():
                return _read(step, self.run(send_with_retries(step, url=self.url, retries=self.retries)))
            case Exchange():
                try:
                    return self._http.request(**_arguments(step.request))
                except httpx.TransportError as error:
                    return error
            case Download():
                self._download(step)
            case Pause():
                time.sleep(step.seconds)
            case FileWork():
                return step.call()
        return None

    def _download(self, step: Download) -> None:
        try:
            with self._http.stream("GET", step.path) as response:
                if not response.is_success:
                    response.read()
                    raise error_of(response)
                for chunk in response.iter_bytes():
                    step.into.write(chunk)
        except httpx.TransportError as error:
            raise _broke_off(self.url, error) from None


class AsyncTransport:
    """Performs steps one after another on an event loop (asyncio or trio); other tasks run while a step waits."""

    def __init__(
        self, url: str, key: str | None, *, timeout_s: float, retries: int, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        self.url = url
        self.retries = retries
        self._http = httpx.AsyncClient(**_connection(url, key, timeout_s), transport=transport)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(self, steps: Steps[T]) -> T:
        """Perform an operation's steps; return its result."""
        run = Run(steps)
        with run:
            while (step := run.next_step()) is not None:
                run.result = await self._perform(step)
        return run.returned

    async def items(self, pages: Pages[T]) -> AsyncIterator[T]:
        """Every item of a list, fetched page by page."""
        page: Page[T] | None = None
        while (request := pages.after(page)) is not None:
            page = pages.read(await self._perform(request))
            for item in page.items:
                yield item

    async def _perform(self, step: Step) -> Any:
        import anyio

        match step:
            case Request():
                return _read(step, await self.run(send_with_retries(step, url=self.url, retries=self.retries)))
            case Exchange():
                try:
                    return await self._http.request(**_arguments(step.request))
                except httpx.TransportError as error:
                    return error
            case Download():
                await self._download(step)
            case Pause():
                await anyio.sleep(step.seconds)
            case FileWork():
                return await anyio.to_thread.run_sync(step.call)
        return None

    async def _download(self, step: Download) -> None:
        try:
            async with self._http.stream("GET", step.path) as response:
                if not response.is_success:
                    await response.aread()
                    raise error_of(response)
                async for chunk in response.aiter_bytes():
                    step.into.write(chunk)
        except httpx.TransportError as error:
            raise _broke_off(self.url, error) from None


def _connection(url: str, key: str | None, timeout_s: float) -> dict[str, Any]:
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0)),
        "trust_env": httpx.URL(url).host not in THIS_MACHINE,  # a proxy cannot reach this machine's own address
    }


def _arguments(request: Request) -> Mapping[str, Any]:
    """A request as httpx takes it."""
    return {
        "method": request.method,
        "url": request.path,
        "params": request.params or None,
        "headers": request.headers,
        "json": request.json,
        "content": request.content,
        "files": request.files,
        "timeout": httpx.USE_CLIENT_DEFAULT if request.timeout_s is None else request.timeout_s,
    }


def _read(request: Request, response: httpx.Response) -> Any:
    if request.reads == "bytes":
        return response.content
    return response.json() if response.content else None


def _broke_off(url: str, error: httpx.TransportError) -> ConnectionFailedError:
    return ConnectionFailedError(f"the connection to {url} was lost: {error or type(error).__name__}")
