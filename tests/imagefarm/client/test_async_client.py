"""The asynchronous client against the real API: the same operations, awaited."""

from __future__ import annotations

import asyncio
import hashlib
import zipfile
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest
from PIL import Image

from imagefarm import AsyncClient, Client
from imagefarm.client import BusyError, NotFoundError, RequestRefusedError, WaitTimeoutError
from imagefarm.states import JobState
from tests.api.farm_api import FarmApi
from tests.imagefarm.client.test_retries import JOB, Server, breaks_off, says, server

__all__ = ["server"]


class InProcess(httpx.AsyncBaseTransport):
    """Calls a WSGI application in a thread."""

    def __init__(self, app: Any) -> None:
        self.app = httpx.WSGITransport(app=app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        plain = httpx.Request(request.method, request.url, headers=request.headers, content=body)
        return await anyio.to_thread.run_sync(self._handle, plain)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        response = self.app.handle_request(request)
        return httpx.Response(response.status_code, headers=response.headers, content=response.read())


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` in a thread of its own: browser tests in this process leave an event loop running in the main thread."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, main()).result()


def client_of(api: FarmApi) -> AsyncClient:
    return AsyncClient("http://127.0.0.1:8000", transport=InProcess(api.app))


def test_a_job_from_submit_to_files(api: FarmApi, tmp_path: Path) -> None:
    async def main() -> None:
        async with client_of(api) as farm:
            job = await farm.jobs.submit("an awaited mug", seed=3, count=2)
            with pytest.raises(WaitTimeoutError):
                await farm.jobs.wait(job, timeout_s=0.2)
            api.render(api.claim(job.id))
            done = await farm.jobs.wait(job, check=True)
            paths = await farm.jobs.download(done, tmp_path, name="mug")
            assert [path.name for path in paths] == ["mug-1.png", "mug-2.png"]
            assert hashlib.sha256(paths[0].read_bytes()).hexdigest() == done.images[0].sha256
            found = await farm.images.lookup(paths[1])
            assert found.items[0].job_id == job.id
            assert (await farm.images.get(done.images[0])).ms == 1.0
            with pytest.raises(NotFoundError):
                await farm.jobs.get("job_00000000000000000000000000")
            with pytest.raises(RequestRefusedError, match="no model is called 'nope'"):
                await farm.jobs.submit("a mug", model="nope")
            with pytest.raises(NotFoundError):
                await farm.jobs.save_archive("job_00000000000000000000000000", tmp_path / "none.zip")

    run(main)


def test_lists_go_on_from_page_to_page(api: FarmApi, client: Client) -> None:
    ids = [client.jobs.submit(f"picture {number}", labels={"set": "awaited"}).id for number in range(3)]

    async def main() -> None:
        async with client_of(api) as farm:
            assert [job.id async for job in farm.jobs.list(label="set:awaited")] == ids[::-1]
            assert [job.id async for job in farm.jobs.list(limit=2)] == ids[:0:-1]
            assert "demo" in {model.name for model in await farm.models.list()}
            assert (await farm.admin.audit.verify()).whole

    run(main)


def test_a_table_with_its_pictures(api: FarmApi, tmp_path: Path) -> None:
    table, photos = tmp_path / "table.csv", tmp_path / "photos.zip"
    table.write_text("sku,product,image\nA,mug,a.png\n")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    with zipfile.ZipFile(photos, "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")

    async def main() -> None:
        async with client_of(api) as farm:
            batch = await farm.batches.submit(table, archive=photos, template="a {{ product }}", model="demo")
            [job] = [job async for job in farm.jobs.list(batch=batch.id)]
            assert job.recipe["init_image"] is not None
            api.render(api.claim(job.id))
            done = await farm.batches.wait(batch, timeout_s=10)
            assert done.counts.succeeded == 1
            files = await farm.batches.download(done, tmp_path / "out")
            assert sorted(path.name for path in files) == ["A.png", "manifest.csv"]
            assert (await farm.jobs.get(job)).state == JobState.SUCCEEDED

    run(main)


def test_it_tries_again_as_the_other_client_does(server: Server) -> None:
    busy = says(503, {"detail": "away", "retry_after": 0.01}, Retry_After="0.01")
    server.script = [busy, breaks_off, says(202, JOB), busy, busy]

    async def main() -> None:
        async with AsyncClient(server.url) as farm:
            assert (await farm.jobs.submit("a mug")).id == "job_1"
        async with AsyncClient(server.url, retries=1) as farm:
            with pytest.raises(BusyError):
                await farm.jobs.get("job_1")

    run(main)
    assert len({headers.get("Idempotency-Key") for _, headers in server.asked[:3]}) == 1
    assert len(server.asked) == 5
