"""Faults of the environment: disk, network, clock."""

from __future__ import annotations

import errno
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from imagefarm.states import JobState
from tests.faults.clock import Clock
from tests.faults.farm import FaultFarm
from tests.faults.half_open import Proxy
from tests.faults.postgres import Postgres
from tests.faults.run import Fault, Run

FULL_S = 5.0
RESPONSE_TIMEOUT_S = 8.0
"""Seconds after which a farm under test treats a silent PostgreSQL connection as lost; the default is 30."""
MIB = 2**20


class SmallDiskFarm(FaultFarm):
    """A farm whose outputs, or all its data, are on a file system of 64 MiB. Needs permission to mount."""

    def __init__(self, folder: Path, *, everything: bool = False, **settings: Any) -> None:
        self.disk = folder / "disk"
        self.disk.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(self.disk)], check=True)
        place = {"data_dir": self.disk / "data"} if everything else {"outputs_dir": self.disk / "outputs"}
        super().__init__(folder, **{**settings, **place})

    def stop(self) -> None:
        super().stop()
        subprocess.run(["umount", "-l", str(self.disk)], check=True)


class SmallServerFarm(FaultFarm):
    """A farm with its own PostgreSQL on a file system of 256 MiB. Needs permission to mount."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        # not below the folder: the server runs as another user without access to it
        self.disk = Path(tempfile.mkdtemp(prefix="farm-disk-"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m,mode=755", "tmpfs", str(self.disk)], check=True)
        self.server = Postgres(self.disk / "postgresql")
        self.server.keep_small()
        super().__init__(folder, postgres=self.server, **settings)

    def stop(self) -> None:
        super().stop()
        self.server.close()
        subprocess.run(["umount", "-l", str(self.disk)], check=True)
        self.disk.rmdir()


class OtherClockFarm(FaultFarm):
    """A farm with its own PostgreSQL, whose clock can be set. Needs a C compiler."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="farm-clock-"))
        self.place.chmod(0o755)
        self.clock = Clock(self.place)
        with self.clock.worn():
            self.server = Postgres(self.place / "postgresql")
        super().__init__(folder, postgres=self.server, **settings)

    def stop(self) -> None:
        super().stop()
        self.server.close()
        shutil.rmtree(self.place, ignore_errors=True)


class ProxiedDatabaseFarm(FaultFarm):
    """A farm whose processes reach PostgreSQL through a TCP proxy that can fall silent. The test connects directly."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        direct = make_url(self.settings.database_url)
        self.proxy = Proxy(f"{direct.query['host']}/.s.PGSQL.5432")
        through = direct.set(host="127.0.0.1", port=self.proxy.port, query={})
        self.settings = self.settings.model_copy(update={"database_url": through.render_as_string(hide_password=False)})

    def stop(self) -> None:
        super().stop()
        self.proxy.close()


class ProxiedFarm(FaultFarm):
    """A farm that reaches Redis through a TCP proxy that can fall silent."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.proxy: Proxy | None = None
        super().__init__(folder, **settings)

    def start_redis(self, dump: Path | None = None) -> None:
        super().start_redis(dump)
        if self.proxy is None:
            self.proxy = Proxy(str(self.socket_folder / "redis.sock"))
            self.settings = self.settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{self.proxy.port}/0"})

    def stop(self) -> None:
        super().stop()
        if self.proxy is not None:
            self.proxy.close()


def disk_full(run: Run) -> None:
    """the disk of the output folder, or of the database and the output folder, is full for 5 s"""
    assert isinstance(run.farm, SmallDiskFarm | SmallServerFarm)
    run.submit()
    run.wait_for_moment()
    _fill(run.farm.disk / "filler")


def server_disk_full(run: Run) -> None:
    """the disk of PostgreSQL, including its log, is full for 5 s; a stopped server is restarted"""
    assert isinstance(run.farm, SmallServerFarm)
    run.submit()
    run.wait_for_moment()
    run.submit(4)
    _fill(run.farm.disk / "filler")
    run.notes["server_gave_up"] = not run.farm.server.runs()
    run.farm.server.start()


def _fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    time.sleep(FULL_S)
    filler.unlink()


def half_open(run: Run) -> None:
    """every connection to Redis falls silent for good without being closed; new ones work"""
    assert isinstance(run.farm, ProxiedFarm)
    assert run.farm.proxy is not None
    run.submit()
    run.wait_for_moment()
    run.notes["silenced"] = run.farm.proxy.silence()
    run.submit(4)


def database_half_open(run: Run) -> None:
    """every connection to PostgreSQL falls silent for good without being closed; new ones work"""
    assert isinstance(run.farm, ProxiedDatabaseFarm)
    run.submit()
    run.wait_for_moment()
    run.notes["silenced"] = run.farm.proxy.silence()
    run.submit(4)


def database_clock_jumps(run: Run) -> None:
    """the clock of the database's host jumps an hour forward or back when a worker and its child die"""
    assert isinstance(run.farm, OtherClockFarm)
    run.submit()
    run.wait_for_moment()
    jump_s = run.random.choice((3600, -3600))
    run.farm.restart(run.victim())
    run.farm.clock.jump(jump_s)
    if jump_s > 0:
        run.begin()
    else:
        run.began = 0.0  # what came before is later now: the times of attempts tell nothing
    jumped = time.monotonic()
    run.submit(4)
    run.client.wait()
    run.farm.wait_until(lambda: not run.farm.count(JobState.QUEUED, JobState.RUNNING), 90, "every job has ended")
    run.notes |= {"jump_s": jump_s, "ended_after_s": round(time.monotonic() - jumped, 1)}


def clock_off(run: Run) -> None:
    """one worker's clock is an hour ahead, another's an hour behind; a child is killed"""
    run.submit()
    run.wait_for_moment()
    run.farm.kill_child(run.victim())


SKEWED = {"w1": {"FARM_FAULTS_CLOCK": "3600"}, "w2": {"FARM_FAULTS_CLOCK": "-3600"}}
FAULTS = [
    Fault("output-disk-full", disk_full, build=SmallDiskFarm),
    Fault("database-disk-full", disk_full, build=SmallDiskFarm, farm={"everything": True}, databases=("sqlite",)),
    Fault("postgres-disk-full", server_disk_full, build=SmallServerFarm, databases=("postgresql",)),
    Fault("redis-half-open", half_open, build=ProxiedFarm),
    Fault(
        "postgres-half-open",
        database_half_open,
        build=ProxiedDatabaseFarm,
        farm={"constants": {"imagefarm.store.pg_timeout": {"RESPONSE_TIMEOUT_S": RESPONSE_TIMEOUT_S}}},
        databases=("postgresql",),
    ),
    Fault("postgres-clock-jumps", database_clock_jumps, build=OtherClockFarm, databases=("postgresql",)),
    # on SQLite, whose clock is that of the one host it lives on, there is no such fault
    Fault("clock-off", clock_off, farm={"worker_environment": SKEWED}, databases=("postgresql",)),
]
