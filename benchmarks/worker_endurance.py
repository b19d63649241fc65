"""2,000 pictures in one worker: its memory at the end against that after 200, and whether a thread or file was left over.

    python -m benchmarks.worker_endurance [--pictures 2000] [--settled 200]

A real farm (`imagefarm up`) with the demo model; jobs over REST in portions, sizes, steps, prompts and counts mixed, every
20th cancelled on its way. Goal: resident memory at the end within 5 % of that after the first 200; no thread and no open
file more than then. Both are read at rest: a worker that has become idle gives back what its last pictures took.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from sqlalchemy import func, select

from imagefarm.states import FINAL
from imagefarm.store import Store
from imagefarm.store.models import Image, Job, Worker
from tests.e2e.up import Up
from worker.memory import malloc_trim
from worker.render import heartbeat

PORTION = 40
REST_S = 2 * (malloc_trim.EVERY_S + heartbeat.EVERY_S)
"""Until an idle worker has given back what it can."""
SIZES = (64, 64, 64, 128)


@dataclass(frozen=True, slots=True)
class Look:
    """What the worker's child holds."""

    pictures: int
    rss: int
    threads: int
    files: int

    def __str__(self) -> str:
        return f"{self.pictures:>6} pictures  RSS {self.rss / 2**20:7.1f} MiB  {self.threads} threads  {self.files} files"


def look(store: Store) -> Look:
    """Look at the child between two portions."""
    with store.read() as session:
        pid = session.scalars(select(Worker.pid).order_by(Worker.started_at.desc())).first()
        pictures = session.scalar(select(func.count()).select_from(Image)) or 0
    assert pid is not None
    child = psutil.Process(pid)
    return Look(pictures, child.memory_info().rss, child.num_threads(), child.num_fds())


def portion(client: httpx.Client, number: int) -> None:
    """Submit one portion of jobs, and cancel some of them."""
    for place in range(PORTION):
        count = number * PORTION + place
        body = {
            "prompt": f"a red mug number {count % 700} on a white background",
            "seed": count,
            "width": SIZES[count % len(SIZES)],
            "steps": 4 + count % 3,
            "priority": ("bulk", "interactive")[count % 5 == 0],
        }
        job = client.post("/api/v1/jobs", json=body).raise_for_status().json()
        if count % 20 == 19:
            client.post(f"/api/v1/jobs/{job['id']}/cancel").raise_for_status()


def wait_until_idle(store: Store) -> None:
    """Until every job has ended."""
    while True:
        with store.read() as session:
            states = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
        if states.get("failed"):
            raise SystemExit(f"jobs failed: {states}")
        if set(states) <= FINAL:
            return
        time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--settled", type=int, default=200)
    asked = parser.parse_args()
    settled: Look | None = None
    with tempfile.TemporaryDirectory() as name:
        up = Up(Path(name) / "farm").until_ready()
        try:
            store, number = up.store(), 0
            with httpx.Client(base_url=up.url, trust_env=False, timeout=60) as client:
                while True:
                    portion(client, number)
                    wait_until_idle(store)
                    number += 1
                    seen = look(store)
                    if settled is None and seen.pictures >= asked.settled:
                        time.sleep(REST_S)
                        settled = seen = look(store)
                    if number % 5 == 0 or seen is settled:
                        print(seen, flush=True)
                    if seen.pictures >= asked.pictures:
                        break
            time.sleep(REST_S)
            last = look(store)
            store.close()
        finally:
            up.close()
    assert settled is not None
    growth = last.rss / settled.rss - 1
    print(f"at the end\n{last}")
    print(f"memory {100 * growth:+.1f} % (goal: within 5 %), threads {last.threads - settled.threads:+}", end="")
    print(f", files {last.files - settled.files:+}")
    return 0 if growth <= 0.05 and last.threads <= settled.threads and last.files <= settled.files else 1


if __name__ == "__main__":
    sys.exit(main())
