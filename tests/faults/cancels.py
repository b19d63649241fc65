"""Cancels that race with claims, steps and commits."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from imagefarm.states import JobState
from imagefarm.store.models import Job
from tests.faults.run import Fault, Run


def cancel_races(run: Run) -> None:
    """half of the jobs are cancelled, twice at the same time, at random moments of their lives"""
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


FAULTS = [Fault("cancel-races", cancel_races)]
