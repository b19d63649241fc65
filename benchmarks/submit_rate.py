"""Single submits over HTTP: how many for each second of the server's CPU, and their latency at half of what it can take.

python -m benchmarks.submit_rate [--seconds 10] [--clients 8] [--databases sqlite,postgresql]

First a few clients submit as fast as they are answered. Then requests come at half that rate, each at its own time whether or
not earlier ones were answered, and their latency is counted from that time. A request carries a key and, as the project's own
client does, an Idempotency-Key.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.served import KINDS, Served, database, quantile, serve
from imagefarm.auth import create_key
from imagefarm.store import Store


class Submitter:
    """One connection that is kept, as a client's pool keeps it."""

    def __init__(self, url: str, key: str) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def submit(self, number: int) -> None:
        body = json.dumps(
            {"prompt": f"a red mug number {number} on a white background", "seed": number, "labels": {"sku": "A-17"}}
        )
        self.connection.request("POST", "/api/v1/jobs", body, self.headers | {"Idempotency-Key": str(uuid.uuid4())})
        response = self.connection.getresponse()
        answer = response.read()
        if response.status != 202:
            raise SystemExit(f"{response.status}: {answer[:300]!r}")


def in_parallel(clients: int, work: Callable[[int], None]) -> None:
    """Run `work(client)` in one thread per client and wait for all threads."""
    threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def as_fast_as_answered(served: Served, key: str, clients: int, seconds: float) -> tuple[int, float]:
    """Submit for `seconds`. Returns the number of accepted jobs and the server's CPU seconds."""
    done = [0] * clients
    cpu, until = served.cpu_s(), time.monotonic() + seconds

    def work(client: int) -> None:
        submitter = Submitter(served.url, key)
        while time.monotonic() < until:
            submitter.submit(done[client])
            done[client] += 1

    in_parallel(clients, work)
    return sum(done), served.cpu_s() - cpu


def at_a_rate(served: Served, key: str, clients: int, seconds: float, rate: float) -> list[float]:
    """Submit at a steady rate; milliseconds of each from when it was due."""
    times: list[float] = []
    began = time.monotonic() + 0.1

    def work(client: int) -> None:
        submitter = Submitter(served.url, key)
        for number in range(client, int(seconds * rate), clients):
            due = began + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            submitter.submit(number)
            times.append(1000 * (time.monotonic() - due))

    in_parallel(clients, work)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--databases", default=",".join(KINDS))
    arguments = parser.parse_args()
    for kind in arguments.databases.split(","):
        with tempfile.TemporaryDirectory() as folder, database(kind, Path(folder)) as url:
            store = Store(url, pool_size=1)
            key = create_key(store, name="benchmark").key
            store.close()
            with serve(url, Path(folder), auth="keys") as served:
                as_fast_as_answered(served, key, arguments.clients, 1)
                number, cpu_s = as_fast_as_answered(served, key, arguments.clients, arguments.seconds)
                rate = number / arguments.seconds
                times = at_a_rate(served, key, 4 * arguments.clients, arguments.seconds, rate / 2)
                print(
                    f"{kind}: {rate:.0f} submits/s from {arguments.clients} clients, {number / cpu_s:.0f} for each second of the "
                    f"server's CPU ({1000 * cpu_s / number:.2f} ms each); at {rate / 2:.0f}/s: "
                    f"p50 {statistics.median(times):.1f} ms, p99 {quantile(times, 0.99):.1f} ms, max {max(times):.1f} ms; "
                    f"RSS {served.rss_mb():.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
