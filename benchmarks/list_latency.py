"""Latency of lists of jobs with many jobs stored: each filter, at the top, in the middle and near the end, over HTTP.

python -m benchmarks.list_latency [--jobs 1000000] [--requests 100] [--keep FOLDER] [--databases sqlite,postgresql] [--plans]
    [--only "model+state" --only "worker (old)"]

Some filters match many jobs, some few, some only the oldest, some none, because conditions without an index may match anywhere.
With --plans the database's plan of each statement is printed first. With --keep the filled databases stay, and the next run only
reads.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from sqlalchemy import func, insert, select, text

from api.http.cursor import make_cursor
from api.http.schemas import rfc3339 as _rfc
from api.v1.jobs.routes import JobQuery
from benchmarks.plans import plans_of, plans_text
from benchmarks.served import KINDS, Served, database, quantile, serve
from imagefarm.auth import Caller, Scope, create_key
from imagefarm.catalogue import Catalogue
from imagefarm.ids import first_id_at
from imagefarm.recipe import JobRequest
from imagefarm.settings import PROJECT_ROOT
from imagefarm.states import JobState
from imagefarm.store import Store
from imagefarm.store.bulk_insert import insert_many
from imagefarm.store.job_access_paths import JobFilter
from imagefarm.store.jobs import list_jobs
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Attempt, Batch, Image, Job, Tenant, Worker
from scheduler.queue.new_job import make_job

BEGAN = 1_700_000_000.0
EVERY_S = 10.0
"""Seconds between two jobs. A million jobs are about four months."""
CHUNK = 5000
BATCHES = 100
MODELS = ("demo", "sd15", "sdxl", "z-image-turbo")
STATES = (*[JobState.SUCCEEDED] * 12, *[JobState.FAILED] * 2, JobState.HELD, JobState.SUCCEEDED)
OLD = 100
"""One job in 100 is old. Only old jobs have the model `retired`, the worker `retired`, or the state cancelled."""
WORKERS, INCARNATIONS = 4, 3
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


@dataclass(frozen=True, slots=True)
class Case:
    """A filter as a query string, and the equivalent for filters that only the page has."""

    name: str
    query: dict[str, str | list[str]]
    page_only: bool = False


def at(number: int) -> float:
    return BEGAN + number * EVERY_S


def job_id(number: int) -> str:
    return first_id_at("job", at(number))[:-8] + f"{number:08d}"


def fill(store: Store, jobs: int, tenants: list[str]) -> None:
    """Store `jobs` jobs of these tenants and BATCHES batches, most of them ended, with attempts and pictures; some still wait."""
    catalogue = Catalogue.read(PROJECT_ROOT / "models.toml")
    base = make_job(catalogue, JobRequest(prompt="p"), DEFAULT_TENANT, costs={}).columns()
    with store.write() as session:
        session.execute(
            insert(Batch),
            [
                {
                    "id": f"batch_{n:026d}",
                    "tenant_id": tenants[n % len(tenants)],
                    "name": f"b{n}",
                    "state": "finished",
                    "created_at": at(n),
                }
                for n in range(BATCHES)
            ],
        )
        for name in ("retired", *(f"gpu-{n}" for n in range(WORKERS))):
            for incarnation in range(INCARNATIONS):
                session.add(
                    Worker(
                        id=f"wrk_{name}_{incarnation}",
                        name=name,
                        host="h",
                        pid=1,
                        state="offline",
                        device="cpu",
                        version="",
                        serves=[],
                        started_at=at(0),
                        heartbeat_at=at(jobs),
                    )
                )
    for start in range(0, jobs, CHUNK):
        rows = [_job(base, n, jobs, tenants) for n in range(start, min(start + CHUNK, jobs))]
        tried = [(n, row) for n, row in enumerate(rows, start) if row["state"] in {JobState.SUCCEEDED, JobState.FAILED}]
        made = [(n, row) for n, row in tried if row["state"] == JobState.SUCCEEDED]
        with store.write(durable=False) as session:
            insert_many(session, Job, rows)
            insert_many(session, Attempt, [_attempt(n, row, jobs) for n, row in tried])
            insert_many(session, Image, [_image(n, row) for n, row in made])
    store.checkpoint()
    if not store.is_sqlite:
        # PostgreSQL runs ANALYZE by itself in time; SQLite never does, and the farm does not request it
        with store.writer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


def _job(base: dict[str, Any], n: int, jobs: int, tenants: list[str]) -> dict[str, Any]:
    batch = n * BATCHES // jobs if n % 2 else None
    state = str(STATES[n % len(STATES)]) if n < jobs - 20_000 or n % 3 else str(JobState.QUEUED)
    old = n < jobs // OLD
    return base | {
        "id": job_id(n),
        "tenant_id": tenants[batch % len(tenants)] if batch is not None else tenants[n % len(tenants)],
        "batch_id": None if batch is None else f"batch_{batch:026d}",
        "model": "retired" if old and n % 5 == 0 else MODELS[n % 7 % len(MODELS)],
        "state": str(JobState.CANCELLED) if old and n % 7 == 0 else state,
        "prompt": f"{THINGS[n % len(THINGS)]} on a white background, number {n}",
        "custom_id": f"row-{n}" if n % 3 else "the same for many",
        "labels": {"sku": f"A-{n % 50_000}", "shop": "north" if n % 3 else "south"} | ({"rare": "yes"} if n == 17 else {}),
        "created_at": at(n),
    }


def _attempt(n: int, row: dict[str, Any], jobs: int) -> dict[str, Any]:
    worker = f"wrk_retired_{n % INCARNATIONS}" if n < jobs // OLD else f"wrk_gpu-{n % WORKERS}_{n * INCARNATIONS // jobs}"
    ended = {"ended_at": at(n) + 9.0, "outcome": row["state"], "reason": None}
    return {"job_id": row["id"], "attempt": 1, "owner": worker, "claimed_at": at(n) + 1.0} | ended


def _image(n: int, row: dict[str, Any]) -> dict[str, Any]:
    digest = f"{n:064x}"
    name = {"id": row["id"].replace("job", "img"), "job_id": row["id"], "tenant_id": row["tenant_id"], "index": 0, "seed": str(n)}
    kept = {"storage_key": f"o/{digest}.png", "format": "png", "width": 512, "height": 512, "bytes": 300_000}
    kept |= {"sha256": digest, "pixel_sha256": digest, "ms": 900.0, "scores": None, "created_at": at(n) + 9.0}
    return name | kept | {"audit": {"device": "cpu", "steps": 8, "versions": {"torch": "2.13.0", "diffusers": "0.42.1"}}}


def cases(jobs: int, tenants: list[str]) -> Iterator[Case]:
    """Every filter; many match few jobs, or only very old ones."""
    times = {"created_after": _rfc(at(jobs // 2)), "created_before": _rfc(at(jobs // 2 + 1000))}
    batch = f"batch_{BATCHES // 2:026d}"
    yield Case("all", {})
    yield Case("state=queued", {"state": "queued"})
    yield Case("state=running (none)", {"state": "running"})
    yield Case("state=failed", {"state": "failed"})
    yield Case("state=cancelled (old)", {"state": "cancelled"})
    yield Case("all states", {"state": [str(state) for state in JobState]})
    yield Case("model", {"model": "sdxl"})
    yield Case("model (old)", {"model": "retired"})
    yield Case("model (none)", {"model": "nothing"})
    yield Case("model+state", {"model": "sdxl", "state": "failed"})
    yield Case("model+state (old)", {"model": "retired", "state": "cancelled"})
    yield Case("model (old)+states", {"model": "retired", "state": ["failed", "queued", "succeeded"]})
    yield Case("batch", {"batch": batch})
    yield Case("batch+state", {"batch": batch, "state": "failed"})
    yield Case("batch+model (none)", {"batch": batch, "model": "retired"})
    yield Case("custom_id, one", {"custom_id": "row-17"})
    yield Case("custom_id, many", {"custom_id": "the same for many"})
    yield Case("worker", {"worker": "gpu-1"})
    yield Case("worker (old)", {"worker": "retired"})
    yield Case("worker (none)", {"worker": "nobody"})
    yield Case("worker+state", {"worker": "gpu-1", "state": "failed"})
    yield Case("worker+model (old)", {"worker": "gpu-1", "model": "retired"})
    yield Case("worker+batch", {"worker": "gpu-1", "batch": batch})
    yield Case("label, many", {"label": "shop:south"})
    yield Case("label, few", {"label": "sku:A-17"})
    yield Case("label, one of all", {"label": "rare:yes"})
    yield Case("label+state", {"label": "sku:A-17", "state": "failed"})
    yield Case("text, many", {"text": "red mug"})
    yield Case("text, Chinese", {"text": "白色的茶壶"})
    yield Case("text, one of all", {"text": "number 17 "})
    yield Case("text, none", {"text": "no such words"})
    yield Case("text+states", {"text": "no such words", "state": ["failed", "queued", "succeeded"]})
    yield Case("text+worker", {"text": "no such words", "worker": "gpu-1"})
    yield Case("time", times)
    yield Case("time+text", times | {"text": "lamp"})
    yield Case("time+model (none)", times | {"model": "retired"})
    yield Case("tenant", {"tenant": tenants[1]}, page_only=True)
    yield Case("tenant+state (old)", {"tenant": tenants[1], "state": "cancelled"}, page_only=True)
    yield Case("tenant+text (none)", {"tenant": tenants[1], "text": "no such words"}, page_only=True)
    yield Case("last hour", {"since": "1h"}, page_only=True)


class Reader:
    """One persistent connection."""

    def __init__(self, served: Served, key: str) -> None:
        self.cpu_s = served.cpu_s
        self.connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=60)
        self.headers = {"Authorization": f"Bearer {key}"}

    def ms(self, path: str) -> tuple[float, bytes]:
        began = time.perf_counter()
        self.connection.request("GET", path, headers=self.headers)
        response = self.connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise SystemExit(f"{path}: {response.status} {body[:300]!r}")
        return 1000 * (time.perf_counter() - began), body


def walk(reader: Reader, query: dict[str, str | list[str]], requests: int, start: str | None) -> tuple[list[float], int]:
    """Milliseconds of each page from a cursor on, and the number of jobs on them."""
    times: list[float] = []
    found, cursor = 0, start
    for _ in range(requests):
        more = {"cursor": cursor} if cursor else {}
        took, body = reader.ms(f"/api/v1/jobs?{urlencode(query | more, doseq=True)}")
        times.append(took)
        answer = json.loads(body)
        found += len(answer["items"])
        cursor = answer["next_cursor"] or start
    return times, found


def measure(reader: Reader, case: Case, requests: int, caller: Caller, starts: list[str | None]) -> str:
    """p50, p99 and maximum latency of a list's pages at each depth, and the server's CPU time per page.

    CPU time does not depend on the load of the machine. Each page is requested once before the measurement, so the database is
    read from memory, not from disk.
    """
    cursors: list[str | None] = []
    if not case.page_only:
        bound = repr(JobQuery.model_validate(_typed(case.query)).wanted(caller))
        cursors = [start and make_cursor(start, bound) for start in starts]
    each = requests // len(starts)
    query = {name: value for name, value in case.query.items() if not name.startswith("created_")}
    addresses = [f"/jobs?{urlencode(query | ({'before': start} if start else {}), doseq=True)}" for start in starts]
    for cursor in cursors:
        walk(reader, case.query, each, cursor)
    for address in addresses:
        reader.ms(address)
    began = reader.cpu_s()
    times: list[float] = []
    found = 0
    for cursor in cursors:
        some, number = walk(reader, case.query, each, cursor)
        times, found = times + some, found + number
    api_ms = 1000 * (reader.cpu_s() - began) / max(len(times), 1)
    began = reader.cpu_s()
    pages = [reader.ms(address)[0] for address in addresses for _ in range(each // 2)]
    page_ms = 1000 * (reader.cpu_s() - began) / max(len(pages), 1)
    return f"API {_figures(times, api_ms):58} page {_figures(pages, page_ms)}  {found} jobs"


def _figures(times: list[float], cpu_ms: float) -> str:
    if not times:
        return "-"
    return f"p50 {statistics.median(times):6.1f}  p99 {quantile(times, 0.99):6.1f}  max {max(times):6.1f}  CPU {cpu_ms:4.1f} ms"


def _typed(query: dict[str, str | list[str]]) -> dict[str, Any]:
    """The query as the API parses a query string: repeatable parameters are lists."""
    repeated = {"state", "label"}
    return {name: [value] if name in repeated and isinstance(value, str) else value for name, value in query.items()}


def plans(store: Store, jobs: int, tenants: list[str], caller: Caller) -> None:
    """The database's plan of each statement of each list, from the middle on."""
    for case in cases(jobs, tenants):
        if not case.page_only:
            wanted = JobQuery.model_validate(_typed(case.query)).wanted(caller)

            def look(wanted: JobFilter = wanted) -> None:
                with store.read() as session:
                    list_jobs(session, wanted, before=job_id(jobs // 2), limit=50)

            print(f"  {case.name}\n{plans_text(plans_of(store, look, writes=False))}")


def run(kind: str, folder: Path, arguments: argparse.Namespace) -> None:
    with database(kind, folder) as url:
        store = Store(url, pool_size=2)
        with store.read() as session:
            stored = session.scalar(select(func.count()).select_from(Job)) or 0
            known = session.scalars(select(Tenant.id).where(Tenant.name.startswith("shop ")).order_by(Tenant.id)).all()
        admin = create_key(store, name="benchmark", scopes=[Scope.FARM])
        made = [create_key(store, name="benchmark", tenant=f"shop {n}") for n in range(5)]
        tenants = list(known) or [key.info.tenant_id for key in made]
        if stored < arguments.jobs:
            began = time.perf_counter()
            fill(store, arguments.jobs, tenants)
            print(f"{kind}: {arguments.jobs} jobs stored in {time.perf_counter() - began:.0f} s", flush=True)
        callers = {
            key.key: Caller(tenant_id=key.info.tenant_id, scopes=frozenset(scopes))
            for key, scopes in ((admin, [Scope.FARM]), (made[0], [Scope.READ]))
        }
        if arguments.plans:
            for caller in callers.values():
                print(f"{kind}, {'every tenant' if caller.is_farm_admin else 'one tenant'}: plans")
                plans(store, arguments.jobs, tenants, caller)
        store.close()
        with serve(url, folder, auth="keys") as served:
            _read(kind, served, arguments, callers, tenants)


def _read(kind: str, served: Served, arguments: argparse.Namespace, callers: dict[str, Caller], tenants: list[str]) -> None:
    starts = [None, job_id(arguments.jobs // 2), job_id(arguments.jobs // 1000)]
    for key, caller in callers.items():
        reader = Reader(served, key)
        for path in ("/api/v1/jobs", "/jobs"):
            reader.ms(path)
        print(f"{kind}, {'every tenant' if caller.is_farm_admin else 'one tenant'}", flush=True)
        for case in cases(arguments.jobs, tenants):
            if (caller.is_farm_admin or "tenant" not in case.query) and case.name in (arguments.only or [case.name]):
                print(f"  {case.name:22} {measure(reader, case, arguments.requests, caller, starts)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--databases", default=",".join(KINDS))
    parser.add_argument("--plans", action="store_true")
    parser.add_argument("--only", action="append", help="a filter by its name as printed; may be repeated")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for kind in arguments.databases.split(","):
            run(kind, (arguments.keep or Path(temporary)).absolute() / kind, arguments)


if __name__ == "__main__":
    main()
