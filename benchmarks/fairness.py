"""Fairness of the scheduler with a stand-in renderer that sleeps: 50,000 bulk images of one tenant, 5,000 of another, and ten
people who request one image at a time.

    python -m benchmarks.fairness --seconds 60

Prints the people's waits alone and under load, Jain's index over the two shops, and the bulk throughput lost to the people.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable

from sqlalchemy import insert, select

from imagefarm.catalogue import Catalogue
from imagefarm.recipe import JobRequest
from imagefarm.settings import PROJECT_ROOT, Settings, load_settings
from imagefarm.states import PriorityClass
from imagefarm.store import Store, db_now
from imagefarm.store.migrate import migrate
from imagefarm.store.models import Job, Tenant
from scheduler.queue.admission import submit_jobs
from scheduler.queue.claim import ClaimLimits, claim
from scheduler.queue.finish import FinishedImage, succeed
from scheduler.queue.new_job import make_job

WORKERS = 4
PEOPLE = 10
IMAGE_S = 0.25
"""Seconds that the stand-in sleeps per image. A quantum of 2 s is then eight images."""
THINK_S = 4.0


class Scene:
    """A store with tenants, worker threads that claim and sleep, and people who submit and wait."""

    def __init__(self, folder: str, settings: Settings, catalogue: Catalogue) -> None:
        self.store = Store(f"sqlite:///{folder}/farm.db", pool_size=WORKERS + PEOPLE + 4)
        migrate(self.store)
        self.settings, self.catalogue = settings, catalogue
        self.served: Counter[str] = Counter()
        self.stop = threading.Event()
        self.work = threading.Event()
        names = ["shop-a", "shop-b", *(f"person-{number}" for number in range(PEOPLE))]
        with self.store.write() as session:
            session.execute(
                insert(Tenant),
                [{"id": f"tenant_{name}", "name": name, "weight": 1.0, "limits": {}, "created_at": 0.0} for name in names],
            )

    def submit(self, tenant: str, number: int, priority: PriorityClass) -> list[str]:
        jobs = [
            make_job(
                self.catalogue,
                JobRequest(prompt="a red mug", seed=1, priority=priority),
                f"tenant_{tenant}",
                costs={"demo": IMAGE_S},
            )
            for _ in range(number)
        ]
        for start in range(0, number, 2000):
            with self.store.write() as session:
                submit_jobs(session, jobs[start : start + 2000], self.settings)
        self.work.set()
        return [job.id for job in jobs]

    def worker(self, number: int) -> None:
        while not self.stop.is_set():
            jobs = claim(
                self.store,
                f"wrk_{number}",
                serves=["demo"],
                resident=["demo"],
                limits=ClaimLimits(images=16, quantum_s=self.settings.quantum_s),
            )
            if not jobs:
                self.work.wait(0.05)  # an idle worker gets its ticket within milliseconds
                self.work.clear()
                continue
            time.sleep(IMAGE_S * len(jobs))
            for job in jobs:
                image = FinishedImage(0, 1, f"{job.id}/0", "png", 64, 64, 1, "0" * 64, "0" * 64, 1.0)
                succeed(self.store, job, [image], actual_s=IMAGE_S)
                self.served[job.tenant_id] += 1

    def person(self, number: int, waits: list[float]) -> None:
        spread = random.Random(number)
        time.sleep(spread.uniform(0, THINK_S))
        while not self.stop.is_set():
            (job_id,) = self.submit(f"person-{number}", 1, PriorityClass.INTERACTIVE)
            while not self.stop.is_set():
                with self.store.read() as session:
                    row = session.execute(select(Job.created_at, Job.started_at, db_now()).where(Job.id == job_id)).one()
                if row.started_at is not None:
                    waits.append(row.started_at - row.created_at)
                    break
                time.sleep(0.05)
            self.stop.wait(spread.uniform(0.5, 1.5) * THINK_S)

    def run(self, seconds: float, people: bool) -> tuple[float, list[float], Counter[str]]:
        """Run for `seconds`; return pictures a second, the people's waits, and pictures by tenant."""
        self.stop.clear()
        self.served.clear()
        waits: list[float] = []
        targets: list[Callable[[], None]] = [lambda number=n: self.worker(number) for n in range(WORKERS)]  # type: ignore[misc]
        if people:
            targets += [lambda number=n: self.person(number, waits) for n in range(PEOPLE)]  # type: ignore[misc]
        threads = [threading.Thread(target=target) for target in targets]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self.stop.set()
        for thread in threads:
            thread.join()
        return sum(self.served.values()) / (time.monotonic() - started), sorted(waits), Counter(self.served)


def quantiles(waits: list[float]) -> str:
    return (
        f"p50 {waits[len(waits) // 2]:.2f} s, p99 {waits[int(0.99 * len(waits))]:.2f} s, max {waits[-1]:.2f} s (n={len(waits)})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--bulk", type=int, default=50_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(folder, load_settings(data_dir=folder), Catalogue.read(PROJECT_ROOT / "models.toml"))
        _, alone, _ = scene.run(arguments.seconds, people=True)
        print(f"people alone:      wait {quantiles(alone)}")
        scene.submit("shop-a", arguments.bulk, PriorityClass.BULK)
        scene.submit("shop-b", arguments.bulk // 10, PriorityClass.BULK)
        rate, _, _ = scene.run(arguments.seconds, people=False)
        loaded_rate, loaded, served = scene.run(arguments.seconds, people=True)
        shops = [served["tenant_shop-a"], served["tenant_shop-b"]]
        jain = sum(shops) ** 2 / (len(shops) * sum(number**2 for number in shops))
        print(f"people under bulk: wait {quantiles(loaded)}")
        loss = 100 * (1 - loaded_rate / rate)
        print(f"bulk alone {rate:.2f} pictures/s; with people {loaded_rate:.2f}/s in all: loss {loss:.1f} %")
        print(f"shops while both have work: {shops}, Jain's index {jain:.4f}")
        scene.store.close()


if __name__ == "__main__":
    main()
