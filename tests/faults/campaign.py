"""The campaign: every fault, many seeds, both databases; one line a run, and the table.

    python -m tests.faults.campaign --fault child-killed --seeds 20 --jobs 24 --db both --out outputs/faults

Runs that need the same kind of farm share one: it lives on from one run to the next, as farms do.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imagefarm.logs import configure_logs
from imagefarm.settings import load_settings
from tests.faults import cancels, commits, database, hostile, places, redis, services, table, workers
from tests.faults.farm import FaultFarm
from tests.faults.run import Fault, Outcome, perform

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for family in (workers, commits, services, redis, database, cancels, hostile, places)
    for fault in family.FAULTS
}
DATABASES = {"sqlite": ("sqlite",), "postgresql": ("postgresql",), "both": ("sqlite", "postgresql")}


def campaign(
    faults: list[Fault], seeds: range, jobs: int, databases: tuple[str, ...], *, folder: Path, settings: dict[str, Any]
) -> Iterator[Outcome]:
    """Run them all; a farm that failed a run is put aside for whoever looks, and the next run gets a new one."""
    groups: dict[str, list[tuple[Fault, str]]] = {}
    for name in databases:
        for fault in faults:
            if name in fault.databases:
                likeness = f"{name} {fault.build} {fault.farm} {fault.needs_engine}"
                groups.setdefault(likeness, []).append((fault, name))
    for group in groups.values():
        yield from lives_of(group, seeds, jobs, folder=folder, settings=settings)


def lives_of(
    group: list[tuple[Fault, str]], seeds: range, jobs: int, *, folder: Path, settings: dict[str, Any]
) -> Iterator[Outcome]:
    """Runs that can share a farm, seed by seed."""
    farm: FaultFarm | None = None
    try:
        for seed in seeds:
            for fault, database_name in group:
                if farm is None:
                    farm = open_farm(fault, database_name, folder, settings)
                outcome = perform(farm, fault, seed, jobs)
                yield outcome
                if not outcome.good:
                    farm.stop()
                    farm = None
    finally:
        if farm is not None:
            farm.stop()
            shutil.rmtree(farm.folder, ignore_errors=True)


def open_farm(fault: Fault, database_name: str, folder: Path, settings: dict[str, Any]) -> FaultFarm:
    """A farm for this fault that is ready."""
    settings = dict(settings)
    place = Path(tempfile.mkdtemp(prefix=f"{fault.name}-{database_name}-", dir=folder))
    build = fault.build or FaultFarm
    standin = settings.pop("standin", False) and not fault.needs_engine
    farm = build(place, database=database_name, standin=standin, **{**settings, **fault.farm})
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
    parser.add_argument(
        "--standin", action="store_true", help="workers sleep instead of rendering: more seeds on a small machine"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/faults"), help="folder of runs.jsonl and of failed farms")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after so long")
    parser.add_argument("--table", action="store_true", help="no runs; print the table of what runs.jsonl holds")
    chosen = parser.parse_args()
    chosen.out = chosen.out.absolute()
    chosen.out.mkdir(parents=True, exist_ok=True)
    configure_logs(load_settings(log_level="error"), "campaign")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no farm behind
    lines = chosen.out / "runs.jsonl"
    if not chosen.table:
        names = list(FAULTS) if chosen.fault == "all" else chosen.fault.split(",")
        unknown = [name for name in names if name not in FAULTS]
        if unknown:
            parser.error(f"no fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
        seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
        settings: dict[str, Any] = {"standin": chosen.standin}
        if chosen.real:
            settings |= {"lease_s": 30.0, "sweep_s": 3.0, "slice_s": 10.0}
        failed = 0
        runs = campaign(
            [FAULTS[name] for name in names], seeds, chosen.jobs, DATABASES[chosen.db], folder=chosen.out, settings=settings
        )
        began = time.monotonic()
        for outcome in runs:
            with lines.open("a") as file:
                file.write(json.dumps(outcome.line() | {"at": time.time()}) + "\n")
            print(table.one_line(outcome), flush=True)
            failed += not outcome.good
            if time.monotonic() - began > 60 * chosen.minutes:
                break
    print(table.markdown([json.loads(line) for line in lines.read_text().splitlines()], FAULTS))
    return 0 if chosen.table or not failed else 1


if __name__ == "__main__":
    sys.exit(main())
