"""The mixed run: many jobs on three workers while a process dies every few seconds, and the same run without faults.

python -m tests.faults.mixed --jobs 1000 --every 20 --db sqlite
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from imagefarm.logs import configure_logs
from imagefarm.settings import load_settings
from imagefarm.states import FINAL
from tests.farm import FarmError
from tests.faults.client import Client
from tests.faults.farm import RESTART_PAUSE_S, FaultFarm
from tests.faults.run import Run
from tests.faults.verdict import judge

MAX_RUN_S = 1800.0
"""Seconds of a run at most, or half a second per job if that is longer."""


def kill_something(farm: FaultFarm, chance: random.Random) -> str:
    """kill -9 of one process of the farm. Processes that a supervisor would restart are restarted."""
    things = [*farm.worker_names, *(f"child of {name}" for name in farm.worker_names), "api", "sweep", "beat", "redis"]
    if farm.postgres is not None:
        things.append("postgresql")
    thing = chance.choice(things)
    if thing.startswith("child of "):
        pid = farm.child_pid(thing.removeprefix("child of "))
        if not psutil.pid_exists(pid):
            return "nobody: that child was just starting"
        farm.kill_child(thing.removeprefix("child of "))
    elif thing == "postgresql":
        assert farm.postgres is not None
        farm.postgres.stop()
        time.sleep(RESTART_PAUSE_S)
        farm.postgres.start()
    else:
        farm.restart(thing)
    return thing


def mixed(farm: FaultFarm, jobs: int, seed: int, every_s: float | None) -> dict[str, Any]:
    """Do the run and return its results. With `every_s` None no process is killed."""
    client = Client(farm.url, farm.promises)
    chance = random.Random(seed)
    run = Run(farm, client, chance, jobs)
    requests = [run.request(steps=8, count=1) for _ in range(jobs)]
    before = farm.count(*FINAL)
    began = time.monotonic()
    client.submit(requests)
    killed: Counter[str] = Counter()
    stuck = ""
    max_run_s = max(MAX_RUN_S, 0.5 * jobs)
    next_at = began + (every_s or max_run_s)
    while farm.count(*FINAL) < before + jobs and time.monotonic() - began < max_run_s:
        if time.monotonic() > next_at:
            killed[kill_something(farm, chance)] += 1
            next_at += every_s or max_run_s
        time.sleep(0.2)
    took_s = time.monotonic() - began
    try:
        client.wait()
        farm.wait_until(lambda: farm.count(*FINAL) >= before + jobs, 60, "every job has ended")
        farm.wait_for_workers()
    except FarmError as error:
        stuck = str(error)[:5000]
    verdict = judge(farm, farm.promises)
    verdict.flaws += [stuck] if stuck else []
    client.close()
    return {
        "jobs": jobs,
        "database": farm.database,
        "renderer": "fake" if farm.fake else "demo",
        "took_s": round(took_s, 1),
        "killed": dict(killed),
        "kills": sum(killed.values()),
        "failed_s": round(client.failed_s(), 1),
        "verdict": vars(verdict),
    }


def main() -> int:
    """Return 1 if a run had a flaw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two deaths")
    parser.add_argument("--db", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fake", action="store_true")
    parser.add_argument("--alone", action="store_true", help="no undisturbed run for comparison")
    parser.add_argument("--out", type=Path, default=Path("outputs/faults"))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    configure_logs(load_settings(log_level="error"), "campaign")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="mixed-", dir=chosen.out.absolute()))
    farm = FaultFarm(
        folder,
        database=chosen.db,
        workers=3,
        fake=chosen.fake,
        lease_s=30.0,
        sweep_interval_s=3.0,
        ticket_slice_s=10.0,
        quantum_s=2.0,
    )
    good = True
    try:
        farm.start()
        for every_s in [chosen.every] if chosen.alone else [None, chosen.every]:
            result = mixed(farm, chosen.jobs, chosen.seed, every_s)
            good = good and not result["verdict"]["flaws"]
            print(json.dumps(result), flush=True)
            with (chosen.out / "mixed.jsonl").open("a") as file:
                file.write(json.dumps(result) + "\n")
    finally:
        farm.stop()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
