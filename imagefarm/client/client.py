"""The clients: a farm's REST API as Python calls, blocking or on an event loop."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Generic, Self

import httpx

from imagefarm.client.resource import TransportT
from imagefarm.client.resources.admin import Admin
from imagefarm.client.resources.batches import Batches
from imagefarm.client.resources.farm import Models, Prompts, Status, Workers
from imagefarm.client.resources.images import Assets, Images
from imagefarm.client.resources.jobs import Jobs
from imagefarm.client.resources.webhooks import Webhooks
from imagefarm.client.transport import AsyncTransport, SyncTransport

DEFAULT_URL = "http://127.0.0.1:8000"


class Farm(Generic[TransportT]):
    """The resources of a farm, on one transport. `Client` and `AsyncClient` are the two kinds."""

    def __init__(self, transport: TransportT) -> None:
        self._transport = transport
        self.url = transport.url
        self.jobs = Jobs(transport)
        self.batches = Batches(transport)
        self.images = Images(transport)
        self.assets = Assets(transport)
        self.models = Models(transport)
        self.workers = Workers(transport)
        self.prompts = Prompts(transport)
        self.webhooks = Webhooks(transport)
        self.status = Status(transport)
        self.admin = Admin(transport)


class Client(Farm[SyncTransport]):
    """Talks to a farm.

    ```
    with Client() as farm:
        job = farm.jobs.wait(farm.jobs.submit("a red mug on a white background", seed=42))
        farm.jobs.download(job, "pictures")
    ```

    `url` and `key` default to IMAGEFARM_URL and IMAGEFARM_API_KEY, then to a farm on this machine and no key. `timeout_s` is the
    number of seconds to wait for a response. A request is repeated up to `retries` times when the farm is busy or out of reach.
    Every submit carries an Idempotency-Key, so a repeated submit makes one job. Raises the kinds of
    `imagefarm.client.ClientError`.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 30.0,
        retries: int = 5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(SyncTransport(_url(url), _key(key), timeout_s=timeout_s, retries=retries, transport=transport))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


class AsyncClient(Farm[AsyncTransport]):
    """Talks to a farm from an event loop, asyncio's or trio's: the operations of `Client`, awaited.

    ```
    async with AsyncClient() as farm:
        job = await farm.jobs.wait(await farm.jobs.submit("a red mug on a white background", seed=42))
        await farm.jobs.download(job, "pictures")
        async for job in farm.jobs.list(state="failed"):
            print(job.id)
    ```
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 30.0,
        retries: int = 5,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(AsyncTransport(_url(url), _key(key), timeout_s=timeout_s, retries=retries, transport=transport))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()


def _url(url: str | None) -> str:
    return (url or os.environ.get("IMAGEFARM_URL") or DEFAULT_URL).rstrip("/")


def _key(key: str | None) -> str | None:
    return key or os.environ.get("IMAGEFARM_API_KEY")
