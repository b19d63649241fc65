"""The embedded farm: `imagefarm up` starts its services, waits until they are ready, watches and stops them."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import httpx
from sqlalchemy import func, select

from imagefarm.catalogue import Catalogue
from imagefarm.errors import ConfigurationError
from imagefarm.settings import Settings
from imagefarm.states import WorkerState
from imagefarm.store import Store
from imagefarm.store.migrate import migrate
from imagefarm.store.models import Worker
from imagefarm.supervisor import services
from imagefarm.supervisor.bind_check import check_bind_address
from imagefarm.supervisor.lock import DataFolderLock
from imagefarm.supervisor.managed_process import ManagedProcess, Say
from imagefarm.supervisor.port import claim_port
from imagefarm.supervisor.redis_server import SocketFolder, find_redis, redis_command
from imagefarm.supervisor.services import Service
from imagefarm.supervisor.watchdog import Watchdog

GIVE_UP_STARTS = 3
"""The start of the farm fails if a service was started more often than this and is still not ready."""
STILL_WAITING_S = 30.0
WHERE_FILE = "farm.json"
"""File in the data folder's `run` with the farm's addresses and process ids."""


def say_to_stderr(line: str) -> None:
    """Print a line for the operator. A closed terminal does not stop the farm."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


class EmbeddedFarm:
    """The whole farm on one machine. `start` returns when it is ready; `stop` ends every process.

    `start` raises ConfigurationError, or a subclass, for everything that an operator can correct.
    """

    def __init__(self, settings: Settings, *, say: Say = say_to_stderr) -> None:
        self.settings = settings
        self.interrupted = threading.Event()
        """Set it to abort the start."""
        self.hurry = threading.Event()
        """Set it to kill the processes that are still stopping."""
        self._say = say
        self._lock = DataFolderLock(settings.data_dir)
        self._folder = SocketFolder(settings.data_dir)
        self._processes: list[ManagedProcess] = []
        self._watchdog: Watchdog | None = None
        self._store: Store | None = None
        self._began = 0.0
        self._http = httpx.Client(timeout=2, trust_env=False)  # no proxy: it cannot reach this machine's own address

    @property
    def url(self) -> str:
        """The farm's URL on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.settings.host, self.settings.host)  # noqa: S104
        return f"http://{host if ':' not in host or host.startswith('[') else f'[{host}]'}:{self.settings.port}"

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the running services, by name."""
        return {process.name: process.pid for process in self._processes if process.pid is not None}

    def start(self) -> None:
        """Start all services and wait until they are ready. After a failure, stop those that were started and raise the error."""
        self._lock.acquire()
        try:
            self._prepare()
            self._start_processes()
            self._wait_until_ready()
            self._write_where()
        except BaseException:
            self.hurry.set()
            self.stop()
            raise

    def stop(self) -> None:
        """Drain and stop. Workers and scheduler stop first, so running jobs finish; then the API, which shows them; then
        Redis."""
        with suppress(OSError):
            (self.settings.data_dir / "run" / WHERE_FILE).unlink(missing_ok=True)
        last = ("api", "redis")
        self._stop_together([process for process in self._processes if process.name not in last])
        for name in last:
            self._stop_together([process for process in self._processes if process.name == name])
        self._processes.clear()
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None
        if self._store is not None:
            self._store.close()
            self._store = None
        self._http.close()
        self._folder.remove()
        self._lock.release()

    def _prepare(self) -> None:
        settings = self.settings
        if settings.workers and importlib.util.find_spec("torch") is None:
            raise ConfigurationError(
                "rendering needs torch, which is not installed: `pip install 'imagefarm-server[worker]'`, or --workers 0"
            )
        Catalogue.read(settings.catalogue_file)
        port = claim_port(settings.host, settings.port)
        self._folder.make()
        (settings.data_dir / "run").mkdir(exist_ok=True)
        self.settings = settings.model_copy(update={"port": port, "redis_url": settings.redis_url or self._folder.url})
        self._store = Store(settings.database, pool_size=2)
        migrate(self._store)
        self._began = self._store.now()
        warning = check_bind_address(settings, self._store)
        if warning is not None:
            self._say(warning)

    def _start_processes(self) -> None:
        self._watchdog = Watchdog()
        wanted = [services.api(), services.sweep(), services.beat()]
        wanted += [services.worker(self.settings, f"worker-{number}") for number in range(1, self.settings.workers + 1)]
        if self.settings.redis_url == self._folder.url:
            wanted.insert(0, Service(name="redis", command=tuple(redis_command(find_redis(), self._folder))))
        logs = self.settings.data_dir / "logs"
        for service in wanted:
            process = ManagedProcess(
                service,
                services.environment(self.settings, service),
                watchdog=self._watchdog,
                say=self._say,
                cwd=self.settings.data_dir / "run",
                log=logs / f"{service.name}.log",
            )
            self._processes.append(process)
            process.start()

    def _wait_until_ready(self) -> None:
        began = reported = time.monotonic()
        while True:
            waiting = self._not_ready()
            if not waiting:
                return
            if self.interrupted.wait(0.1):
                raise ConfigurationError("stopped before it was ready")
            for process in self._processes:
                if process.starts > GIVE_UP_STARTS:
                    raise ConfigurationError(
                        f"{process.name} does not come up: {process.last_words or 'it said nothing'} (logs in {self._logs})"
                    )
            if time.monotonic() - reported > STILL_WAITING_S:
                reported = time.monotonic()
                self._say(f"still waiting for {', '.join(waiting)} after {reported - began:.0f} s (logs in {self._logs})")

    def _not_ready(self) -> list[str]:
        waiting = []
        try:
            if self._http.get(f"{self.url}/readyz").status_code != httpx.codes.OK:
                waiting.append("api")
        except httpx.TransportError:
            waiting.append("api")
        if self._store is not None and self.settings.workers:
            names = [f"worker-{number}" for number in range(1, self.settings.workers + 1)]
            up = select(func.count(func.distinct(Worker.name))).where(
                Worker.name.in_(names),
                Worker.state.not_in([WorkerState.STARTING, WorkerState.OFFLINE]),  # a drained worker counts as up
                Worker.started_at >= self._began,
            )
            with self._store.read() as session:
                if (session.scalar(up) or 0) < len(names):
                    waiting.append("the workers")
        return waiting

    def _write_where(self) -> None:
        where = {"url": self.url, "redis_url": self.settings.redis_url, "processes": self.pids}
        (self.settings.data_dir / "run" / WHERE_FILE).write_text(json.dumps(where), "utf-8")

    @property
    def _logs(self) -> Path:
        return self.settings.data_dir / "logs"

    def _stop_together(self, processes: Iterable[ManagedProcess]) -> None:
        processes = list(processes)
        for process in processes:
            process.stop()
        for process in processes:
            deadline = time.monotonic() + process.service.grace_s
            while not process.wait(0.05):
                if self.hurry.is_set() or time.monotonic() > deadline:
                    if not self.hurry.is_set():
                        self._say(f"{process.name} did not stop in {process.service.grace_s:g} s and is killed")
                    process.kill()
                    break
