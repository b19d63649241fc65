"""One run: a client submits, one fault happens at a seeded moment, the farm comes to rest, and the verdict is computed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from imagefarm.states import FINAL, JobState
from imagefarm.store.models import Attempt, Batch, Job
from tests.farm import FarmError
from tests.faults.client import Client
from tests.faults.farm import FaultFarm
from tests.faults.verdict import Verdict, judge

QUIET_S = 120.0
"""Seconds. No fault here stops a farm for longer."""
THINGS = ("mug", "bottle", "box", "lamp", "chair", "vase", "bag", "shoe")
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "pink", "orange")


@dataclass
class Run:
    """The farm, the client and the random numbers of a run, for its fault."""

    farm: FaultFarm
    client: Client
    random: random.Random
    jobs: int
    began: float = 0.0
    """Database time at which the fault began."""
    ended_before: int = 0
    flaws: list[str] = field(default_factory=list)
    """Flaws that the fault itself found."""
    notes: dict[str, Any] = field(default_factory=dict)

    def submit(self, number: int | None = None, **fields: Any) -> None:
        """Start to submit jobs of one to three images; by default as many as the run has."""
        self.client.submit([self.request(**fields) for _ in range(self.jobs if number is None else number)], every_s=0.02)

    def request(self, **fields: Any) -> dict[str, Any]:
        colour, thing = self.random.choice(COLOURS), self.random.choice(THINGS)
        request = {
            "prompt": f"a {colour} {thing} on a white background",
            "count": self.random.choice((1, 1, 2, 3)),
            "steps": self.random.randint(4, 12),
            "seed": self.random.randrange(2**64),
            "priority": self.random.choice(("interactive", "bulk")),
        }
        return {**request, **fields}

    def wait_for_moment(self) -> None:
        """Wait until a seeded part of the run's jobs has ended and others run; then mark the time of the fault."""
        done = self.random.randint(0, self.jobs // 2)
        before = self.ended_before
        self.farm.wait_until(
            lambda: self.farm.count(*FINAL) >= before + done and self.farm.count(JobState.RUNNING) > 0,
            60,
            "the moment of the fault",
        )
        time.sleep(self.random.uniform(0, 0.3))
        self.begin()

    def wait_for_point(self, point: str) -> int:
        """Wait until a process passes a failpoint; return its pid. A farm that finishes without passing it gets another job."""
        for _ in range(20):
            with suppress(FarmError):
                return self.farm.wait_until(lambda: self.farm.taken(point), 6, f"somebody passed {point}")
            self.submit(1)
        return self.farm.wait_until(lambda: self.farm.taken(point), 1, f"somebody passed {point}")

    def begin(self) -> None:
        """Mark the time of the fault."""
        self.began = self.farm.store.now()

    def victim(self) -> str:
        """A worker with running jobs, if there is one, otherwise any worker."""
        with self.farm.store.read() as session:
            holding = [
                name
                for name in self.farm.worker_names
                if (row := self.farm.worker(name)) is not None
                and session.scalar(
                    select(func.count()).select_from(Job).where(Job.owner == row.id, Job.state == JobState.RUNNING)
                )
            ]
        return self.random.choice(holding or self.farm.worker_names)


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault."""

    name: str
    inject: Callable[[Run], None]
    """Submits, waits, injects the fault, and repairs what an operator or a supervisor would repair."""
    databases: tuple[str, ...] = ("sqlite", "postgresql")
    farm: dict[str, Any] = field(default_factory=dict)
    """Arguments of the farm that the fault needs."""
    build: Callable[..., FaultFarm] | None = None
    """Builder of that farm; None builds a FaultFarm."""
    needs_engine: bool = False
    """True if the fault needs a real engine, which the device `fake` does not have."""
    promise_s: float | None = None
    """Jobs that lost their attempt are claimed again within this time, at the settings of the run."""

    @property
    def what(self) -> str:
        """The fault in one line."""
        return (self.inject.__doc__ or "").strip().splitlines()[0]


@dataclass
class Outcome:
    """One line of the campaign's output."""

    fault: str
    database: str
    seed: int
    verdict: Verdict
    disturbed: int
    """Number of jobs that lost their attempt to the fault."""
    noticed_s: float | None
    """Seconds from the fault until the last of them was queued again."""
    recover_s: float | None
    """Seconds from the fault until all of them were claimed again; if there are none, until the next claim."""
    failed_s: float
    """Seconds in which requests of the client failed."""
    took_s: float
    lease_s: float
    renderer: str
    notes: dict[str, Any]

    @property
    def good(self) -> bool:
        return self.verdict.good

    def line(self) -> dict[str, Any]:
        return asdict(self) | {"good": self.good}


def perform(farm: FaultFarm, fault: Fault, seed: int, jobs: int) -> Outcome:
    """Do one run on a farm at rest."""
    client = Client(farm.url, farm.promises)
    run = Run(farm, client, random.Random(f"{fault.name} {seed}"), jobs)
    run.ended_before = farm.count(*FINAL)
    began = time.monotonic()
    stuck = ""
    try:
        fault.inject(run)
        client.wait()
        farm.wait_until(lambda: _at_rest(farm, client), QUIET_S, "every accepted job has ended")
        farm.wait_for_workers()
    except (FarmError, SQLAlchemyError) as error:
        stuck = str(error)[:20_000]
    took_s = time.monotonic() - began
    disturbed, noticed_s, recover_s = recovery(farm, run.began)
    verdict = judge(farm, farm.promises)
    verdict.flaws += run.flaws
    if stuck:
        verdict.flaws.append(stuck)
    if fault.promise_s is not None and disturbed and (recover_s is None or recover_s > fault.promise_s):
        verdict.flaws.append(f"{disturbed} jobs ran again after {recover_s} s; the promise is {fault.promise_s} s")
    client.close()
    return Outcome(
        fault=fault.name,
        database=farm.database,
        seed=seed,
        verdict=verdict,
        disturbed=disturbed,
        noticed_s=noticed_s,
        recover_s=recover_s,
        failed_s=round(client.failed_s(), 2),
        took_s=round(took_s, 1),
        lease_s=farm.settings.lease_s,
        renderer="fake" if farm.fake else "demo",
        notes=run.notes,
    )


def recovery(farm: FaultFarm, began: float) -> tuple[int, float | None, float | None]:
    """The number of jobs that lost an attempt, and the seconds from `began` (database time) until they were queued and ran
    again."""
    if not began:
        return 0, None, None
    with farm.store.read() as session:
        lost = session.execute(
            select(Attempt.job_id, Attempt.attempt, Attempt.ended_at).where(
                Attempt.claimed_at <= began, Attempt.ended_at >= began, Attempt.outcome.in_(["crashed", "retry"])
            )
        ).all()
        again = [
            session.scalar(select(Attempt.claimed_at).where(Attempt.job_id == job_id, Attempt.attempt == attempt + 1))
            for job_id, attempt, _ in lost
        ]
        if not lost:
            again = [session.scalar(select(func.min(Attempt.claimed_at)).where(Attempt.claimed_at > began))]
    noticed = max((ended_at - began for _, _, ended_at in lost), default=None)
    back = max((at - began for at in again if at is not None), default=None)
    return len(lost), _rounded(noticed), _rounded(back)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


def _at_rest(farm: FaultFarm, client: Client) -> bool:
    if farm.count(JobState.QUEUED, JobState.RUNNING, JobState.HELD):
        return False
    with farm.store.read() as session:
        return session.scalar(select(func.count()).select_from(Batch).where(Batch.state == "validating")) == 0
