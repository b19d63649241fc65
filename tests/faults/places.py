"""What lies around the farm: its disk, its network, its clock."""

from __future__ import annotations

import errno
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.faults.farm import FaultFarm
from tests.faults.half_open import Proxy
from tests.faults.run import Fault, Run

FULL_S = 5.0
MIB = 2**20


class SmallDiskFarm(FaultFarm):
    """Its pictures, or all its data, lie on a file system of 64 MiB. Needs the right to mount."""

    def __init__(self, folder: Path, *, everything: bool = False, **settings: Any) -> None:
        self.disk = folder / "disk"
        self.disk.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(self.disk)], check=True)
        place = {"data_dir": self.disk / "data"} if everything else {"outputs_dir": self.disk / "outputs"}
        super().__init__(folder, **{**settings, **place})

    def stop(self) -> None:
        super().stop()
        subprocess.run(["umount", "-l", str(self.disk)], check=True)


class ProxiedFarm(FaultFarm):
    """Its Redis is reached by TCP through a proxy that can fall silent."""

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
    """the disk of the pictures, or of everything, is full for 5 s"""
    assert isinstance(run.farm, SmallDiskFarm)
    run.submit()
    run.wait_for_moment()
    filler = run.farm.disk / "filler"
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
    """every connection to Redis falls silent without being closed, for good; new ones work"""
    assert isinstance(run.farm, ProxiedFarm)
    assert run.farm.proxy is not None
    run.submit()
    run.wait_for_moment()
    run.notes["silenced"] = run.farm.proxy.silence()
    run.submit(4)


def clock_off(run: Run) -> None:
    """one worker's clock is an hour ahead, another's an hour behind; a child is killed"""
    run.submit()
    run.wait_for_moment()
    run.farm.kill_child(run.victim())


SKEWED = {"w1": {"FARM_FAULTS_CLOCK": "3600"}, "w2": {"FARM_FAULTS_CLOCK": "-3600"}}
FAULTS = [
    Fault("output-disk-full", disk_full, build=SmallDiskFarm),
    Fault("database-disk-full", disk_full, build=SmallDiskFarm, farm={"everything": True}, databases=("sqlite",)),
    Fault("redis-half-open", half_open, build=ProxiedFarm),
    # on SQLite, whose clock is that of the one host it lives on, there is no such fault
    Fault("clock-off", clock_off, farm={"worker_environment": SKEWED}, databases=("postgresql",)),
]
