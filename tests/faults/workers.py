"""Workers that die, freeze, or are stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from sqlalchemy import select

from imagefarm.output_store import JOB_KEY
from imagefarm.states import JobState
from imagefarm.store.models import Job
from tests.farm import FarmError
from tests.faults.run import Fault, Run

LOCKS_HELD_S = 6.0
"""Seconds after which PostgreSQL ends a transaction with a silent client (imagefarm.store.engine)."""


def child_killed(run: Run) -> None:
    """kill -9 of the render child"""
    run.submit()
    run.wait_for_moment()
    run.farm.kill_child(run.victim())


def tree_killed(run: Run) -> None:
    """kill -9 of a worker and its child, as when the host dies"""
    run.submit()
    run.wait_for_moment()
    run.farm.restart(run.victim())


def all_killed(run: Run) -> None:
    """kill -9 of every worker at once"""
    run.submit()
    run.wait_for_moment()
    for name in run.farm.worker_names:
        run.farm.kill(name)
    for name in run.farm.worker_names:
        run.farm.start_again(name)


def frozen_past_lease(run: Run) -> None:
    """SIGSTOP of a worker past its lease, then SIGCONT: it continues with jobs that other workers own by then"""
    run.submit()
    run.wait_for_moment()
    lease_s = run.farm.settings.lease_s
    with run.farm.frozen(run.victim()):
        time.sleep(lease_s + run.random.uniform(1.5, 3.0))


def frozen_before_commit(run: Run) -> None:
    """a worker is frozen between a job's last file and its commit until the job is rendered again; only the fence decides"""

    def is_rendered_again() -> bool:
        written = {match["job"] for match in map(JOB_KEY.match, run.farm.files()) if match}
        with run.farm.store.read() as session:
            again = session.scalars(select(Job.id).where(Job.state == JobState.RUNNING, Job.attempt > 1)).all()
        return not written.isdisjoint(again)

    longest_s = 3 * (max(run.farm.settings.lease_s, LOCKS_HELD_S) + run.farm.settings.lease_s)

    def wait() -> None:
        try:
            run.farm.wait_until(is_rendered_again, longest_s, "the job is rendered again")
        except FarmError:
            # another of its threads was writing: on SQLite a frozen writer blocks all others until it continues
            run.notes["held_the_lock"] = True

    _frozen_at(run, "before_commit", wait)


def frozen_in_transaction(run: Run) -> None:
    """a worker is frozen past its lease in the middle of a commit, with its locks held"""
    seconds = max(run.farm.settings.lease_s, LOCKS_HELD_S) + run.farm.settings.lease_s + run.random.uniform(1.5, 3.0)
    _frozen_at(run, "in_transaction", lambda: time.sleep(seconds))


def rolling_restart(run: Run) -> None:
    """SIGTERM to each worker in turn; each is replaced by a new one"""
    run.submit()
    run.wait_for_moment()
    took = []
    for name in run.farm.worker_names:
        began = time.monotonic()
        run.farm.terminate(name, timeout=90)
        took.append(round(time.monotonic() - began, 1))
        run.farm.start_again(name)
        run.farm.wait_for_workers()
    run.notes["ended_after_s"] = took


def _frozen_at(run: Run, point: str, wait: Callable[[], object]) -> None:
    run.farm.lay(point, "stop", after=run.random.randint(0, run.jobs // 3))
    run.submit(steps=40)
    pid = run.wait_for_point(point)
    run.begin()
    name = next(name for name in run.farm.worker_names if pid in {process.pid for process in run.farm.processes_of(name)})
    run.farm.signal(name, signal.SIGSTOP)  # the parent, too
    before = run.farm.count(JobState.SUCCEEDED)
    try:
        wait()
        run.notes["ended_while_frozen"] = run.farm.count(JobState.SUCCEEDED) - before
    finally:
        run.farm.signal(name, signal.SIGCONT)


FAULTS = [
    Fault("child-killed", child_killed, promise_s=20.0),
    Fault("worker-killed", tree_killed, promise_s=35.0),
    Fault("all-workers-killed", all_killed),
    Fault("worker-frozen", frozen_past_lease),
    Fault("frozen-before-commit", frozen_before_commit),
    Fault("frozen-in-transaction", frozen_in_transaction),
    Fault("rolling-restart", rolling_restart),
]
