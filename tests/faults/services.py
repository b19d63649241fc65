"""The API, the sweep and beat die."""

from __future__ import annotations

import time

from tests.faults.farm import RESTART_PAUSE_S
from tests.faults.run import Fault, Run

GIVEN_UP_S = 6.0
CHUNK = 4
STALE = {
    "imagefarm.store.idempotency": {"STALE_S": GIVEN_UP_S},
    "scheduler.batches.sweep_steps": {"STALE_S": GIVEN_UP_S},
    "scheduler.batches.table.spool": {"CHUNK_JOBS": CHUNK},
}
"""Shorter timeouts and smaller transactions for bulk submissions. An abandoned submission is cancelled sooner than after
a quarter of an hour, and some of its transactions are committed before the API dies.
"""


def api_killed(run: Run) -> None:
    """kill -9 of the API during single submits"""
    run.submit()
    time.sleep(run.random.uniform(0.02, 0.02 * run.jobs))
    run.begin()
    run.farm.restart("api")


def api_killed_in_bulk(run: Run) -> None:
    """kill -9 of the API during a bulk submission"""
    number = run.random.randint(CHUNK + 1, max(run.jobs, CHUNK + 1))
    run.farm.lay("in_bulk", after=run.random.randint(0, 1))
    run.client.submit_table([f"{number} red mug {row}" for row in range(number)])
    run.submit(2)
    run.farm.wait_until(lambda: run.farm.taken("in_bulk"), 60, "the API was in the middle of a submission")
    run.begin()
    run.farm.restart("api")


def beat_killed(run: Run) -> None:
    """kill -9 of beat; a ticket is lost meanwhile, and a render child is killed"""
    _without(run, "beat")


def sweep_killed(run: Run) -> None:
    """kill -9 of the sweep; a ticket is lost meanwhile, and a render child is killed"""
    _without(run, "sweep")


def _without(run: Run, name: str) -> None:
    run.submit()
    run.wait_for_moment()
    run.farm.kill(name)
    run.farm.direct_redis().flushall()
    run.farm.kill_child(run.victim())
    time.sleep(RESTART_PAUSE_S + run.random.uniform(0, 3))
    run.farm.start_again(name)


FAULTS = [
    Fault("api-killed", api_killed),
    Fault("api-killed-in-bulk", api_killed_in_bulk, farm={"constants": STALE}),
    Fault("beat-killed", beat_killed),
    Fault("sweep-killed", sweep_killed),
]
