"""The whole farm against a bare diffusers loop: from `POST /api/v1/jobs` to committed pictures, demo model, in turns.

    python -m benchmarks.rest_to_picture [--images 256] [--prompts 16] [--rounds 2]

Two farms in turn. In one, jobs share forward passes and prompts repeat. In the other nothing can be shared: one image a
pass, and every prompt is new. The loop saves its pictures as PNG; the farm's are done when their rows are committed.
Goals: 1.8 x the loop's pictures a second where passes are shared, 0.97 x where not, and less than 15 ms of CPU a picture
outside the model, all processes of the farm together (the API's and the database's share included). The CPU time of
the idle farm is measured first and reported separately; the goal includes it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from sqlalchemy import func, select

from benchmarks.bare_loop import BareLoop
from benchmarks.engine_vs_loop import prompts
from imagefarm.store import Store
from imagefarm.store.models import Image, Job
from tests.e2e.up import Up

Asked = list[tuple[str, int]]
STANDING_S = 10.0
"""Seconds for which the idle farm is measured: three sweeps, two heartbeats."""


@dataclass(frozen=True, slots=True)
class FarmRound:
    """One round of the farm, in seconds for all its images."""

    wall: float
    submit: float
    cpu: dict[str, float]
    """CPU seconds of each process."""
    model_cpu: float
    """CPU seconds of the render thread for the work that the pipeline does too (encoder, noise, denoiser, scheduler, decoder)."""

    def outside_ms(self, images: int) -> float:
        """CPU seconds outside the model, per image."""
        return 1000 * (sum(self.cpu.values()) - self.model_cpu) / images


def asked_for(images: int, distinct: int, first_seed: int) -> Asked:
    """Prompts and seeds that no other round has: (first_seed) makes new prompts too where all are distinct."""
    texts = prompts(distinct)
    if distinct == images:
        texts = [f"{text}, round {first_seed}" for text in texts]
    return [(texts[number % distinct], first_seed + number) for number in range(images)]


def cpu_by_process(up: Up) -> dict[str, float]:
    """CPU seconds of every process of the farm so far, by kind."""
    spent: dict[str, float] = {}
    for process in psutil.Process(up.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            line, times = " ".join(process.cmdline()), process.cpu_times()
            spent[kind_of(line)] = spent.get(kind_of(line), 0.0) + times.user + times.system
    return spent


def standing(up: Up) -> dict[str, float]:
    """CPU seconds per second of each process while the farm is idle."""
    before, began = cpu_by_process(up), time.perf_counter()
    time.sleep(STANDING_S)
    took = time.perf_counter() - began
    return {kind: (seconds - before.get(kind, 0.0)) / took for kind, seconds in cpu_by_process(up).items()}


def kind_of(line: str) -> str:
    """The part of the farm that a command line belongs to."""
    for words, kind in (
        ("gunicorn", "api"),
        ("redis-server", "redis"),
        ("scheduler.service", "sweep"),
        ("multiprocessing", "worker child"),
        ("spawn_main", "worker child"),
        ("worker.service", "worker parent"),
    ):
        if words in line:
            return kind
    return "other"


def farm_round(up: Up, store: Store, asked: Asked) -> FarmRound:
    """Submit all of these over REST, one request after another, and wait until the last picture is committed."""
    with store.read() as session:
        before = session.scalar(select(func.count()).select_from(Image)) or 0
    cpu = cpu_by_process(up)
    started = time.perf_counter()
    ids = []
    with httpx.Client(base_url=up.url, trust_env=False, timeout=60) as client:
        for prompt, seed in asked:
            response = client.post("/api/v1/jobs", json={"prompt": prompt, "seed": seed, "priority": "bulk"})
            response.raise_for_status()
            ids.append(response.json()["id"])
    submit = time.perf_counter() - started
    while True:
        with store.read() as session:
            done = (session.scalar(select(func.count()).select_from(Image)) or 0) - before
        if done == len(asked):
            break
        with store.read() as session:
            failed = session.execute(select(Job.id, Job.error_detail).where(Job.state == "failed")).first()
        if failed:
            raise SystemExit(f"a job failed: {failed}")
        time.sleep(0.02)
    wall = time.perf_counter() - started
    spent = {kind: seconds - cpu.get(kind, 0.0) for kind, seconds in cpu_by_process(up).items()}
    with store.read() as session:
        audits = session.scalars(select(Image.audit).where(Image.job_id.in_(ids))).all()
    return FarmRound(wall, submit, spent, sum(audit["host_ms"] for audit in audits) / 1000)


def compare(
    name: str, loop: BareLoop, asked: argparse.Namespace, *, goal: float, folder: Path, distinct: int, **env: str
) -> bool:
    """Run the rounds of one case and print them; return whether the goals were met."""
    up = Up(folder / "farm", **env).until_ready()
    try:
        store = up.store()
        farm_round(up, store, asked_for(4, 4, 1_000_000))  # warm up both sides
        loop.round(asked_for(2, 2, 2_000_000))
        idle = standing(up)
        loops: list[tuple[float, float]] = []
        farms: list[FarmRound] = []
        for number in range(asked.rounds):
            todo = asked_for(asked.images, distinct, 10_000 * number)
            loops.append(loop.round(todo))
            farms.append(farm_round(up, store, todo))
        store.close()
    finally:
        up.close()
    count = asked.images
    ratios = [bare[0] / farm.wall for bare, farm in zip(loops, farms, strict=True)]
    outside = statistics.median(farm.outside_ms(count) for farm in farms)
    print(f"{name}: {count} pictures, {distinct} prompts, {asked.rounds} rounds in turns")
    print(f"  loop   {count / statistics.median(wall for wall, _ in loops):6.2f} pictures/s")
    print(f"  farm   {count / statistics.median(farm.wall for farm in farms):6.2f} pictures/s, submitting took", end=" ")
    print(f"{1000 * statistics.median(farm.submit for farm in farms) / count:.1f} ms a job of it")
    print(f"  ratio  {statistics.median(ratios):6.2f} (goal {goal}; rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    print(f"  CPU outside the model {outside:.1f} ms a picture (goal 15), inside", end=" ")
    print(f"{1000 * statistics.median(farm.model_cpu for farm in farms) / count:.1f} ms; by process, ms a picture:", end=" ")
    last = farms[-1]
    print(", ".join(f"{kind} {1000 * seconds / count:.1f}" for kind, seconds in sorted(last.cpu.items())))
    rate = sum(idle.values())
    caused = statistics.median(farm.outside_ms(count) - 1000 * rate * farm.wall / count for farm in farms)
    print(f"  of it standing, which an idle farm takes too: {outside - caused:.1f} ms a picture; idle it takes", end=" ")
    print(f"{1000 * rate:.1f} ms a second:", end=" ")
    print(", ".join(f"{kind} {1000 * seconds:.1f}" for kind, seconds in sorted(idle.items())))
    return statistics.median(ratios) >= goal and outside < 15


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--prompts", type=int, default=16, help="distinct prompts of the case that shares")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=("shared", "unshared"))
    asked = parser.parse_args()
    met = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loop = BareLoop(folder / "loop")
        for case in ("shared", "unshared"):
            if asked.only in (None, case):
                (folder / case).mkdir()
                shares = case == "shared"
                more = {} if shares else {"IMAGEFARM_MAX_RUNNING_SET_IMAGES": json.dumps(1)}
                goal, distinct = (1.8, asked.prompts) if shares else (0.97, asked.images)
                met.append(compare(case, loop, asked, goal=goal, folder=folder / case, distinct=distinct, **more))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
