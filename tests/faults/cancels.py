"""Cancels that race with claims, steps and commits."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from imagefarm.states import JobState
from imagefarm.store.models import Job
from tests.faults.run import Fault, Run


def cancel_races(run: Run) -> None:
    """half of the jobs are cancelled, twice at the same time, at random moments of their lives"""
    ids = [run.client.submit_now(run.request()) for _ in range(run.jobs // 2)]
    run.begin()

    def cancel(job_id: str) -> tuple[str, int]:
        return job_id, run.client.cancel(job_id)

    waits = {job_id: run.random.uniform(0, 3.0) for job_id in ids}
    run.submit(run.jobs - len(ids))
    answers: dict[str, list[int]] = {}
    with ThreadPoolExecutor(4) as threads:
        began = time.monotonic()
        for job_id in sorted(ids, key=waits.__getitem__):
            time.sleep(max(0.0, began + waits[job_id] - time.monotonic()))
            for name, status in threads.map(cancel, (job_id, job_id)):
                answers.setdefault(name, []).append(status)
    run.client.wait()
    run.farm.wait_for_jobs(ids)
    # a cancel that was answered by yes has won, and one that came too late has not
    for job_id, statuses in answers.items():
        with run.farm.store.read() as session:
            state = session.get_one(Job, job_id).state
        if state != (JobState.CANCELLED if 200 in statuses else JobState.SUCCEEDED):
            run.flaws.append(f"{job_id} is {state} although its cancels were answered {statuses}")
    run.notes["cancelled"] = sum(200 in statuses for statuses in answers.values())


FAULTS = [Fault("cancel-races", cancel_races)]
