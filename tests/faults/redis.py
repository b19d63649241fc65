"""Redis dies, restarts empty or with an old dump, fills up, freezes."""

from __future__ import annotations

import time

from tests.faults.farm import RESTART_PAUSE_S
from tests.faults.run import Fault, Run

FROZEN_S = 12.0
LATE = 4
"""Jobs that are submitted while Redis is down, so their tickets are lost."""


def restarted_empty(run: Run) -> None:
    """kill -9 of Redis; it restarts empty"""
    run.submit()
    run.wait_for_moment()
    run.farm.kill("redis")
    run.submit(LATE)
    time.sleep(RESTART_PAUSE_S + run.random.uniform(0, 2))
    run.farm.start_redis()


def restarted_with_an_old_dump(run: Run) -> None:
    """kill -9 of Redis; it restarts with an old dump that holds tickets of finished work"""
    run.submit(run.jobs // 2)
    redis = run.farm.direct_redis()
    time.sleep(run.random.uniform(0, 0.5))
    redis.save()
    dump = run.farm.folder / "old.rdb"
    dump.write_bytes((run.farm.socket_folder / "dump.rdb").read_bytes())
    run.submit(run.jobs - run.jobs // 2)
    run.wait_for_moment()
    run.farm.kill("redis")
    time.sleep(RESTART_PAUSE_S + run.random.uniform(0, 2))
    run.farm.start_redis(dump)


def full(run: Run) -> None:
    """Redis refuses every write for 5 s (maxmemory reached, noeviction)"""
    redis = run.farm.direct_redis()
    run.submit()
    run.wait_for_moment()
    redis.config_set("maxmemory-policy", "noeviction")
    redis.config_set("maxmemory", "1")
    run.submit(LATE)
    time.sleep(5)
    redis.config_set("maxmemory", "0")


def frozen(run: Run) -> None:
    """Redis neither responds nor closes its connections for 12 s"""
    run.submit()
    run.wait_for_moment()
    with run.farm.frozen("redis"):
        run.submit(LATE)
        time.sleep(FROZEN_S)


FAULTS = [
    Fault("redis-restarted-empty", restarted_empty),
    Fault("redis-old-dump", restarted_with_an_old_dump),
    Fault("redis-full", full),
    Fault("redis-frozen", frozen),
]
