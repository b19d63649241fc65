"""The API as a process: gunicorn as in production, on SQLite."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from imagefarm.settings import PROJECT_ROOT, Settings, load_settings
from imagefarm.store import Store
from imagefarm.store.migrate import migrate
from tests.api.conftest import api_settings

COMMAND = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf", "api.service:app"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(settings: Settings) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEFARM_")}
    return kept | settings.environment() | {"PYTHONPATH": str(PROJECT_ROOT)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    """A running API: a client of it, and gunicorn's own process."""
    folder = tmp_path_factory.mktemp("served")
    settings = api_settings(folder, f"sqlite:///{folder / 'farm.db'}", redis_url, port=free_port(), api_threads=32)
    store = Store(settings.database)
    migrate(store)
    store.close()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(COMMAND, cwd=folder, env=environment(settings), stdout=log, stderr=log)
    client = httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=30)
    for _ in range(600):
        assert process.poll() is None, (folder / "log").read_text()
        try:
            client.get("/healthz")
            break
        except httpx.TransportError:
            time.sleep(0.1)
    yield client, process
    client.close()
    process.kill()
    process.wait(10)


def test_it_serves(served: tuple[httpx.Client, Any]) -> None:
    client, _ = served
    assert client.get("/readyz").json()["status"] == "ready"
    response = client.post("/api/v1/jobs", json={"prompt": "a red mug"})
    assert response.status_code == 202
    assert client.get(response.headers["Location"]).json()["state"] == "queued"
    chunked = client.post(
        "/api/v1/jobs", content=iter([b'{"prompt"', b': "in parts"}']), headers={"Content-Type": "application/json"}
    )
    assert chunked.status_code == 202
    with httpx.Client(base_url=client.base_url, timeout=30) as other:  # gunicorn closes a connection whose body was not read
        body = iter([b" " * 1_000_000] * 3)
        assert other.post("/api/v1/jobs", content=body, headers={"Content-Type": "application/json"}).status_code == 413


def test_it_stays_small_and_knows_no_torch(served: tuple[httpx.Client, subprocess.Popen[bytes]]) -> None:
    client, process = served
    for _ in range(20):
        client.get("/docs")
        client.get("/api/v1/jobs")
    [worker] = psutil.Process(process.pid).children()
    assert worker.memory_info().rss < 150e6
    maps = {Path(item.path).name for item in worker.memory_maps() if ".so" in item.path}
    assert not any("torch" in name for name in maps)


@pytest.mark.process
def test_importing_the_service_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys, api.service; print(sorted({'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)))"
    settings = load_settings(data_dir=tmp_path, redis_url="unix:///nowhere/redis.sock")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(settings), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_broken_http_is_no_500(served: tuple[httpx.Client, Any]) -> None:
    client, _ = served
    port = client.base_url.port
    for sent in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /api/v1/jobs HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/jobs/%ed%a0%80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4\r\n"
        b"Connection: close\r\n\r\n\xff\xff\xff\xff",
    ):
        with socket.create_connection(("127.0.0.1", port or 0), timeout=20) as connection:
            connection.sendall(sent)
            response = connection.recv(200)
        assert response.startswith(b"HTTP/1.1 4"), (sent, response)


def test_it_stops_at_once_though_a_stream_is_open(served: tuple[httpx.Client, subprocess.Popen[bytes]]) -> None:
    client, process = served
    job = client.post("/api/v1/jobs", json={"prompt": "a red mug"}).json()
    with client.stream("GET", job["urls"]["events"]) as stream:
        lines = stream.iter_lines()
        while not next(lines).startswith("event: job"):
            pass
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        for _ in lines:
            pass
        assert time.monotonic() - began < 5  # gunicorn itself would wait for it for graceful_timeout
    assert process.wait(30) == 0


def test_a_database_of_newer_code_is_refused(tmp_path: Path, redis_url: str) -> None:
    from sqlalchemy import text

    settings = api_settings(tmp_path, f"sqlite:///{tmp_path / 'farm.db'}", redis_url, port=free_port())
    store = Store(settings.database)
    migrate(store)
    with store.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    done = subprocess.run(COMMAND, cwd=tmp_path, env=environment(settings), capture_output=True, text=True, timeout=60)
    assert done.returncode == 7
    assert "newer" in done.stderr
    assert "Traceback" not in done.stderr
