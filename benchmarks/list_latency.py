"""Latency of lists of jobs with many jobs stored: each filter, at the top and deep down, over HTTP; and the query plans.

python -m benchmarks.list_latency [--jobs 1000000] [--requests 100] [--keep FOLDER] [--databases sqlite,postgresql] [--plans]

With --keep the filled databases stay in that folder, and the next run only reads.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from sqlalchemy import func, insert, select, text
from sqlalchemy.dialects import postgresql, sqlite

from benchmarks.served import KINDS, Served, database, quantile, serve
from imagefarm.auth import Scope, create_key
from imagefarm.catalogue import Catalogue
from imagefarm.ids import first_id_at
from imagefarm.recipe import JobRequest
from imagefarm.settings import PROJECT_ROOT
from imagefarm.states import JobState
from imagefarm.store import Store
from imagefarm.store.jobs import JobFilter, list_statement
from imagefarm.store.many import insert_many
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Batch, Job
from scheduler import admission

BEGAN = 1_700_000_000.0
EVERY_S = 10.0
"""One job in this time: a million are about four months."""
CHUNK = 5000
BATCHES = 100
MODELS = ("demo", "sd15", "sdxl", "z-image-turbo")
STATES = (*[JobState.SUCCEEDED] * 12, *[JobState.FAILED] * 2, JobState.CANCELLED, JobState.HELD)
THINGS = (
    "a red mug",
    "a blue chair",
    "a wooden spoon",
    "一个白色的茶壶",
    "a leather bag",
    "a glass lamp",
    "a desk",
    "a pair of boots",
)


def at(number: int) -> float:
    return BEGAN + number * EVERY_S


def job_id(number: int) -> str:
    return first_id_at("job", at(number))[:-8] + f"{number:08d}"


def fill(store: Store, jobs: int, tenants: list[str]) -> None:
    """Store `jobs` jobs of these tenants and BATCHES batches, most of them ended; some still wait."""
    base = admission.prepare(Catalogue.read(PROJECT_ROOT / "models.toml"), JobRequest(prompt="p"), DEFAULT_TENANT, costs={})
    base.pop("expires_in")
    with store.write() as session:
        rows = [
            {
                "id": f"batch_{n:026d}",
                "tenant_id": tenants[n % len(tenants)],
                "name": f"b{n}",
                "state": "finished",
                "created_at": at(n),
            }
            for n in range(BATCHES)
        ]
        session.execute(insert(Batch), rows)
    for start in range(0, jobs, CHUNK):
        rows = []
        for n in range(start, min(start + CHUNK, jobs)):
            row = dict(base)
            batch = n * BATCHES // jobs if n % 2 else None
            row |= {
                "id": job_id(n),
                "tenant_id": tenants[batch % len(tenants)] if batch is not None else tenants[n % len(tenants)],
                "batch_id": None if batch is None else f"batch_{batch:026d}",
                "model": MODELS[n % 7 % len(MODELS)],
                "state": str(STATES[n % len(STATES)]) if n < jobs - 20_000 or n % 3 else str(JobState.QUEUED),
                "prompt": f"{THINGS[n % len(THINGS)]} on a white background, number {n}",
                "custom_id": f"row-{n}",
                "labels": {"sku": f"A-{n % 50_000}", "shop": "north" if n % 3 else "south"}
                | ({"rare": "yes"} if n == 17 else {}),
                "created_at": at(n),
            }
            rows.append(row)
        with store.write(durable=False) as session:
            insert_many(session, Job, rows)
    with store.writer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE" if store.is_sqlite else "VACUUM ANALYZE"))


def filters(jobs: int, tenants: list[str]) -> Iterator[tuple[str, dict[str, str], JobFilter]]:
    """Each filter under its name: as a query string, and as the store takes it."""
    middle, later = at(jobs // 2), at(jobs // 2 + 1000)
    times = {"created_after": _rfc(middle), "created_before": _rfc(later)}
    batch = f"batch_{BATCHES // 2:026d}"
    yield "all", {}, JobFilter()
    yield "state=queued", {"state": "queued"}, JobFilter(states=(JobState.QUEUED,))
    yield "state=running (none)", {"state": "running"}, JobFilter(states=(JobState.RUNNING,))
    yield "state=failed", {"state": "failed"}, JobFilter(states=(JobState.FAILED,))
    yield "model", {"model": "sdxl"}, JobFilter(model="sdxl")
    yield "model (none)", {"model": "nothing"}, JobFilter(model="nothing")
    yield "model+state", {"model": "sdxl", "state": "failed"}, JobFilter(model="sdxl", states=(JobState.FAILED,))
    yield "batch", {"batch": batch}, JobFilter(batch_id=batch)
    yield "batch+state", {"batch": batch, "state": "failed"}, JobFilter(batch_id=batch, states=(JobState.FAILED,))
    yield "custom_id", {"custom_id": "row-17"}, JobFilter(custom_id="row-17")
    yield "label, many", {"label": "shop:south"}, JobFilter(labels=(("shop", "south"),))
    yield "label, few", {"label": "sku:A-17"}, JobFilter(labels=(("sku", "A-17"),))
    yield "label, one of all", {"label": "rare:yes"}, JobFilter(labels=(("rare", "yes"),))
    yield "text, many", {"text": "red mug"}, JobFilter(text="red mug")
    yield "text, Chinese", {"text": "白色的茶壶"}, JobFilter(text="白色的茶壶")
    yield "text, one of all", {"text": "number 17 "}, JobFilter(text="number 17 ")
    yield "time", times, JobFilter(created_after=middle, created_before=later)
    yield "time+text", times | {"text": "lamp"}, JobFilter(created_after=middle, created_before=later, text="lamp")


def _rfc(seconds: float) -> str:
    from api.shapes import rfc3339

    return rfc3339(seconds)


class Reader:
    """One connection that is kept."""

    def __init__(self, url: str, key: str) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self.headers = {"Authorization": f"Bearer {key}"}

    def ms(self, path: str) -> tuple[float, bytes]:
        began = time.perf_counter()
        self.connection.request("GET", path, headers=self.headers)
        response = self.connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise SystemExit(f"{path}: {response.status} {body[:300]!r}")
        return 1000 * (time.perf_counter() - began), body


def measure(reader: Reader, query: dict[str, str], requests: int, *, page: bool) -> str:
    """p50, p99 and the number of jobs of a list's pages: the first, and those that its cursors lead to."""
    times: list[float] = []
    found = 0
    cursor: str | None = None
    for _ in range(requests):
        more = {"cursor": cursor} if cursor else {}
        path = "/jobs" if page else "/api/v1/jobs"
        took, body = reader.ms(f"{path}?{urlencode(query | more)}")
        times.append(took)
        if not page:
            answer = json.loads(body)
            found += len(answer["items"])
            cursor = answer["next_cursor"]
    return f"p50 {statistics.median(times):6.1f} ms  p99 {quantile(times, 0.99):6.1f} ms" + ("" if page else f"  {found} jobs")


def plans(store: Store, jobs: int, tenants: list[str]) -> None:
    """The database's plan of each list, deep down."""
    dialect = sqlite.dialect() if store.is_sqlite else postgresql.dialect()
    for name, _, wanted in filters(jobs, tenants):
        statement = list_statement(wanted, job_id(jobs // 2), 51)
        query = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
        with store.read() as session:
            connection = session.connection()
            rows = connection.exec_driver_sql(
                ("EXPLAIN QUERY PLAN " if store.is_sqlite else "EXPLAIN ") + query.replace("%%", "%")
            )
            print(f"  {name}\n" + "\n".join(f"      {row[-1]}" for row in rows))


def run(kind: str, folder: Path, arguments: argparse.Namespace) -> None:
    with database(kind, folder) as url:
        store = Store(url, pool_size=2)
        admin = create_key(store, name="benchmark", scopes=[Scope.ADMIN])
        made = [create_key(store, name="benchmark", tenant=f"shop {n}") for n in range(5)]
        tenants = [key.info.tenant_id for key in made]
        with store.read() as session:
            stored = session.scalar(select(func.count()).select_from(Job)) or 0
        if stored < arguments.jobs:
            began = time.perf_counter()
            fill(store, arguments.jobs, tenants)
            print(f"{kind}: {arguments.jobs} jobs stored in {time.perf_counter() - began:.0f} s", flush=True)
        if arguments.plans:
            plans(store, arguments.jobs, tenants)
        store.close()
        with serve(url, folder, auth="keys") as served:
            _read(kind, served, arguments, {"every tenant": admin.key, "one tenant": made[0].key}, tenants)


def _read(kind: str, served: Served, arguments: argparse.Namespace, keys: dict[str, str], tenants: list[str]) -> None:
    for who, key in keys.items():
        reader = Reader(served.url, key)
        reader.ms("/api/v1/jobs")
        print(f"{kind}, {who}", flush=True)
        for name, query, _ in filters(arguments.jobs, tenants):
            api = measure(reader, query, arguments.requests, page=False)
            page = measure(reader, query, max(10, arguments.requests // 5), page=True)
            print(f"  {name:22} API {api:50} page {page}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--databases", default=",".join(KINDS))
    parser.add_argument("--plans", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for kind in arguments.databases.split(","):
            run(kind, (arguments.keep or Path(temporary)).absolute() / kind, arguments)


if __name__ == "__main__":
    main()
