"""The campaign: every fault, many seeds, both databases; one line a run, and the table.

    python -m tests.faults.campaign --fault child-killed --seeds 20 --jobs 24 --db both --out outputs/faults
    python -m tests.faults.campaign --seeds 20 --fake --lanes 4 --write docs/reliability.md

Runs that need the same kind of farm share one: it lives on from one run to the next, as farms do. What `runs.jsonl` in the
output folder holds already is not run again, so a campaign that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil

from imagefarm.logs import configure_logs
from imagefarm.settings import PROJECT_ROOT, load_settings
from tests.faults import cancels, commits, database, environment, hostile, redis, services, table, workers
from tests.faults.farm import SHORT, FaultFarm
from tests.faults.run import Fault, perform

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for family in (workers, commits, services, redis, database, cancels, hostile, environment)
    for fault in family.FAULTS
}
DATABASES = {"sqlite": ("sqlite",), "postgresql": ("postgresql",), "both": ("sqlite", "postgresql")}


TOGETHER, SEEDS_A_LIFE = 6, 5
"""Faults per farm, and seeds per fault. Starting a farm costs as much as one or two runs."""
Life = tuple[str, list[str], list[int]]
"""A database, names of faults whose farms are alike, and seeds."""
Done = set[tuple[str, str, int, float]]
"""Runs that are done already: fault, database, seed, lease."""


def key(fault: Fault, database_name: str, seed: int, lease_s: float) -> tuple[str, str, int, float]:
    """The identity of a run; `lease_s` is the lease of faults that set none."""
    return fault.name, database_name, seed, fault.farm.get("lease_s", lease_s)


def lives(faults: list[Fault], seeds: range, databases: tuple[str, ...], done: Done, lease_s: float) -> list[Life]:
    """All that is to be run, cut into lives of farms: the first seeds of every fault, then the next ones, and so on, so that
    the table is even wherever it ends.
    """
    found: list[Life] = []
    for first in range(seeds.start, seeds.stop, SEEDS_A_LIFE):
        some = range(first, min(first + SEEDS_A_LIFE, seeds.stop))
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in databases:
            for fault in faults:
                if name in fault.databases and not all(key(fault, name, seed, lease_s) in done for seed in some):
                    likeness = f"{name} {fault.build} {fault.farm} {fault.needs_engine}"
                    groups.setdefault(likeness, []).append((fault.name, name))
        for group in groups.values():
            for start in range(0, len(group), TOGETHER):
                members = group[start : start + TOGETHER]
                found.append((members[0][1], [fault_name for fault_name, _ in members], list(some)))
    return found


def live(life: Life, jobs: int, done: Done, *, folder: Path, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The runs of one life, each as a line. A farm that failed a run is kept for examination, and a new one is started."""
    database_name, names, seeds = life
    lease_s = settings.get("lease_s", SHORT["lease_s"])
    farm: FaultFarm | None = None
    try:
        for seed in seeds:
            for fault in (FAULTS[name] for name in names):
                if key(fault, database_name, seed, lease_s) in done:
                    continue
                if farm is None:
                    farm = open_farm(fault, database_name, folder, settings)
                before = cpu_s(farm)
                outcome = perform(farm, fault, seed, jobs)
                print(table.one_line(outcome), flush=True)
                yield outcome.line() | {"cpu_s": round(cpu_s(farm) - before, 1)}
                if not outcome.good:
                    farm.stop()
                    farm = None
    finally:
        if farm is not None:
            farm.stop()
            shutil.rmtree(farm.folder, ignore_errors=True)


def cpu_s(farm: FaultFarm) -> float:
    """Processor time of a farm so far, and of this process; the time of orphans that were killed is missing."""
    total = sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in (0, resource.RUSAGE_CHILDREN))
    for name in farm.processes:
        with suppress(psutil.Error):
            for process in farm.processes_of(name):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def lane(tasks: Any, lines: Any, how: tuple[int, Done, Path, dict[str, Any]]) -> None:
    """A process that lives one life after the other."""
    jobs, done, folder, settings = how
    configure_logs(load_settings(log_level="error"), "campaign")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no farm behind
    while True:
        try:
            life = tasks.get_nowait()
        except queue.Empty:
            break
        try:
            for line in live(life, jobs, done, folder=folder, settings=settings):
                lines.put(line)
        except Exception as error:  # a farm that could not be started; the other lives go on
            print(f"FAIL  {life}: {error!r:.3000}", flush=True)
            lines.put(None)


def campaign(
    todo: list[Life], lanes: int, jobs: int, done: Done, *, folder: Path, settings: dict[str, Any]
) -> Iterator[dict[str, Any] | None]:
    """Run all lives in `lanes` parallel lanes, because a run mostly waits. None stands for a life that failed to start."""
    if lanes == 1:
        for life in todo:
            yield from live(life, jobs, done, folder=folder, settings=settings)
        return
    context = multiprocessing.get_context("spawn")
    tasks, lines = context.Queue(), context.Queue()
    for life in todo:
        tasks.put(life)
    processes = [context.Process(target=lane, args=(tasks, lines, (jobs, done, folder, settings))) for _ in range(lanes)]
    try:
        for process in processes:
            process.start()
            time.sleep(1.0)
        while any(process.is_alive() for process in processes) or not lines.empty():
            with suppress(queue.Empty):
                yield lines.get(timeout=1.0)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            process.join(60)
        tasks.cancel_join_thread()


def open_farm(fault: Fault, database_name: str, folder: Path, settings: dict[str, Any]) -> FaultFarm:
    """A farm for this fault that is ready."""
    settings = dict(settings)
    place = Path(tempfile.mkdtemp(prefix=f"{fault.name}-{database_name}-", dir=folder))
    build = fault.build or FaultFarm
    fake = settings.pop("fake", False) and not fault.needs_engine
    farm = build(place, database=database_name, fake=fake, **{**settings, **fault.farm})
    try:
        farm.start()
    except BaseException:
        farm.stop()
        raise
    return farm


def main() -> int:
    """Return 1 if any run had a flaw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", default="all", help=f"names separated by commas, or all: {', '.join(FAULTS)}")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--db", choices=list(DATABASES), default="both")
    parser.add_argument("--real", action="store_true", help="leases of 30 s and sweeps every 3 s, as a farm has them")
    parser.add_argument("--fake", action="store_true", help="workers have the device `fake`: more seeds on a small machine")
    parser.add_argument("--out", type=Path, default=Path("outputs/faults"), help="folder of runs.jsonl and of failed farms")
    parser.add_argument("--minutes", type=float, default=1e9, help="minutes after which no run begins")
    parser.add_argument("--lanes", type=int, default=1, help="farms at once")
    parser.add_argument("--again", action="store_true", help="also what runs.jsonl holds already")
    parser.add_argument("--table", action="store_true", help="no runs; print the table of what runs.jsonl holds")
    parser.add_argument("--write", type=Path, help="put the table between its marks in this page")
    parser.add_argument("--from", type=Path, action="append", default=[], dest="sources", help="further runs.jsonl for the table")
    chosen = parser.parse_args()
    chosen.out = chosen.out.absolute()
    chosen.out.mkdir(parents=True, exist_ok=True)
    configure_logs(load_settings(log_level="error"), "campaign")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    kept = chosen.out / "runs.jsonl"
    failed = 0 if chosen.table else run_all(parser, chosen, kept)
    lines = table.read([kept, *chosen.sources])
    text = table.markdown(lines, FAULTS)
    if chosen.write:
        table.put(chosen.write, text)
    else:
        print(text)
    return 1 if failed else 0


def run_all(parser: argparse.ArgumentParser, chosen: argparse.Namespace, kept: Path) -> int:
    """All runs that were asked for; return how many had a flaw."""
    names = list(FAULTS) if chosen.fault == "all" else chosen.fault.split(",")
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        parser.error(f"no fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
    settings: dict[str, Any] = {"fake": chosen.fake}
    if chosen.real:
        settings |= {"lease_s": 30.0, "sweep_interval_s": 3.0, "ticket_slice_s": 10.0}
    lease_s = settings.get("lease_s", SHORT["lease_s"])
    ran = [] if chosen.again else table.read([kept])
    done = {(line["fault"], line["database"], line["seed"], line["lease_s"]) for line in ran}
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    todo = lives([FAULTS[name] for name in names], seeds, DATABASES[chosen.db], done, lease_s)
    failed, began, commit = 0, time.monotonic(), commit_id()
    runs = campaign(todo, chosen.lanes, chosen.jobs, done, folder=chosen.out, settings=settings)
    with closing(runs), kept.open("a") as file:  # type: ignore[type-var]
        for line in runs:
            failed += line is None or not line["good"]
            if line is not None:
                file.write(json.dumps(line | {"at": time.time(), "commit": commit}) + "\n")
                file.flush()
            if time.monotonic() - began > 60 * chosen.minutes:
                break
    return failed


def commit_id() -> str:
    """The commit that is checked out, with a plus if something was changed since; "" outside a repository."""
    git = ["git", "-C", str(PROJECT_ROOT)]
    with suppress(OSError, subprocess.CalledProcessError):
        commit = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True).strip()
        changed = subprocess.check_output([*git, "status", "--porcelain", "--untracked-files=no"], text=True).strip()
        return commit + ("+" if changed else "")
    return ""


if __name__ == "__main__":
    sys.exit(main())
