"""The database loses its connections, stops, locks, fills up."""

from __future__ import annotations

import sqlite3
import time

from tests.faults.run import Fault, Run

STOPPED_S = 30.0
LOCKED_S = 5.0


def backends_terminated(run: Run) -> None:
    """every connection to PostgreSQL is terminated, three times"""
    postgres = run.farm.postgres
    assert postgres is not None
    run.submit()
    run.wait_for_moment()
    run.notes["terminated"] = []
    for _ in range(3):
        run.notes["terminated"].append(postgres.terminate_backends())
        time.sleep(run.random.uniform(0.2, 0.8))


def stopped(run: Run) -> None:
    """PostgreSQL is stopped for 30 s without a checkpoint, then recovers"""
    _stopped_for(run, STOPPED_S)


def stopped_briefly(run: Run) -> None:
    """PostgreSQL is stopped for 4 s without a checkpoint, then recovers"""
    _stopped_for(run, 4.0)


def _stopped_for(run: Run, seconds: float) -> None:
    postgres = run.farm.postgres
    assert postgres is not None
    run.submit()
    run.wait_for_moment()
    postgres.stop()
    time.sleep(seconds)
    postgres.start()


def locked(run: Run) -> None:
    """another process holds an exclusive transaction on the SQLite file for 5 s"""
    run.submit()
    run.wait_for_moment()
    path = run.farm.store.url.database
    assert path is not None
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    time.sleep(LOCKED_S)
    connection.execute("ROLLBACK")
    connection.close()


FAULTS = [
    Fault("postgres-backends-terminated", backends_terminated, databases=("postgresql",)),
    Fault("postgres-stopped-4s", stopped_briefly, databases=("postgresql",)),
    Fault("postgres-stopped-30s", stopped, databases=("postgresql",)),
    Fault("sqlite-locked", locked, databases=("sqlite",)),
]
