"""Cancels that race with claims, steps and commits."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from imagefarm.states import FINAL, JobState
from imagefarm.store.models import Job
from tests.faults.run import Fault, Run


def cancel_races(run: Run) -> None:
    """half of the jobs are cancelled, by two requests at once, at random moments"""
    run.begin()
    run.submit(run.jobs // 2)
    orders = [(run.request(steps=run.random.randint(8, 24)), run.random.uniform(0, 2.0)) for _ in range(run.jobs // 2)]
    answers: dict[str, list[int]] = {}

    def live_and_die(order: tuple[dict[str, Any], float]) -> None:
        request, wait_s = order
        job_id = run.client.submit_now(request)
        time.sleep(wait_s)
        with ThreadPoolExecutor(2) as twins:
            answers[job_id] = list(twins.map(run.client.cancel, (job_id, job_id)))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(live_and_die, orders))
    run.client.wait()
    run.farm.wait_for_jobs(list(answers))
    # a cancel that was answered by yes has won, and one that came too late has not
    for job_id, statuses in answers.items():
        with run.farm.store.read() as session:
            state = session.get_one(Job, job_id).state
        if state != (JobState.CANCELLED if 200 in statuses else JobState.SUCCEEDED):
            run.flaws.append(f"{job_id} is {state} although its cancels were answered {statuses}")
    run.notes["cancelled"] = sum(200 in statuses for statuses in answers.values())


def cancelled_before_commit(run: Run) -> None:
    """a job is cancelled between the write of its files and its commit: exactly one of the two wins"""
    point = "before_commit"
    run.farm.lay(point, "hold", after=run.random.randint(0, run.jobs // 3))
    run.submit()
    run.wait_for_point(point)
    job_id = run.farm.wait_until(lambda: run.farm.held(point), 10, "a job is held")
    run.begin()
    cancel_is_first = run.random.random() < 0.5
    with ThreadPoolExecutor(1) as thread:
        if not cancel_is_first:
            run.farm.release(point)
            time.sleep(run.random.uniform(0, 0.01))
        answered = thread.submit(run.client.cancel, job_id)
        if cancel_is_first:
            answered.result()
            run.farm.release(point)
    status = answered.result()
    run.farm.wait_for_jobs([job_id])
    state = run.farm.job(job_id).state
    run.notes |= {"cancel_is_first": cancel_is_first, "state": str(state)}
    if status != (200 if state == JobState.CANCELLED else 409) or (cancel_is_first and status != 200):
        run.flaws.append(f"{job_id} is {state} although its cancel was answered {status}")
    if state == JobState.CANCELLED:
        # who lost the race takes its pictures away itself
        run.farm.wait_until(lambda: not any(job_id in key for key in run.farm.files()), 10, "the pictures are gone")


def api_killed_in_bulk_cancel(run: Run) -> None:
    """kill -9 of the API during the cancellation of all matching jobs; the client repeats the request"""
    doomed = [run.client.submit_now(run.request(labels={"doomed": "yes"}, steps=50, count=3)) for _ in range(2 * run.jobs)]
    run.client.promises.may_cancel |= set(doomed)
    run.farm.lay("in_bulk_cancel", after=run.random.randint(0, 1))
    with ThreadPoolExecutor(1) as thread:
        answered = thread.submit(run.client.cancel_all, {"label": ["doomed:yes"]})
        run.submit(run.jobs // 2)
        run.farm.wait_until(lambda: run.farm.taken("in_bulk_cancel"), 30, "the API was in the middle of a cancel")
        run.begin()
        run.notes["cancelled_before"] = run.farm.count(JobState.CANCELLED)
        run.farm.restart("api")
        run.notes["changed"] = answered.result()
    left = [job_id for job_id in doomed if run.farm.job(job_id).state not in FINAL]
    if left:
        run.flaws.append(f"{len(left)} jobs that match are still open after the answer: {left[:3]}")


CHUNK = 4
SMALL_CHUNKS = {"scheduler.batches.bulk_actions": {"CHUNK": CHUNK}}
FAULTS = [
    Fault("cancel-races", cancel_races),
    Fault("cancel-before-commit", cancelled_before_commit),
    Fault("api-killed-in-bulk-cancel", api_killed_in_bulk_cancel, farm={"constants": SMALL_CHUNKS}),
]
