"""The verdict over a farm that has come to rest: SQL, a walk of the output folder, and the client's own list."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select

from imagefarm.output_store import JOB_KEY, LocalOutputStore
from imagefarm.states import FINAL, JobState
from imagefarm.store.audit import seal, verify
from imagefarm.store.models import Attempt, Backlog, Batch, Event, Image, Job, SweepState
from scheduler.recovery.backlog import reconcile_backlog
from scheduler.recovery.orphan_files import collect_orphan_files
from tests.farm import Farm
from tests.faults.client import Promises


@dataclass
class Verdict:
    """The counts of one check. `flaws` describes each broken promise in words."""

    accepted: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    doubled: int = 0
    """Images with two rows or two files, and jobs that ended twice."""
    ghosts: int = 0
    """Rows without a file, images of jobs that did not succeed, and jobs that no client submitted."""
    orphans: int = 0
    """Files without a row that are left after the collection."""
    strays: int = 0
    """Files without a row before the collection."""
    drift: int = 0
    chain_whole: bool = True
    flaws: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.flaws


def judge(farm: Farm, promises: Promises) -> Verdict:
    """Check jobs, rows, files and counters. Jobs that an earlier verdict counted are not counted again."""
    verdict = Verdict()
    with farm.store.read() as session:
        jobs = {row.id: row for row in session.scalars(select(Job))}
        rows = list(session.scalars(select(Image)))
        batches = dict(session.execute(select(Batch.id, Batch.state)).all())
    _check_promises(verdict, promises, jobs, batches)
    _check_rows(verdict, jobs, rows)
    _check_files(verdict, farm, rows)
    _check_books(verdict, farm)
    return verdict


def _check_promises(verdict: Verdict, promises: Promises, jobs: dict[str, Job], batches: dict[str, str]) -> None:
    verdict.flaws += [f"refused: {text}" for text in promises.refused]
    told = set(promises.jobs)
    missing = told - set(jobs)
    for batch_id, number in promises.batches.items():
        members = {job.id for job in jobs.values() if job.batch_id == batch_id}
        told |= members
        if len(members) != number:
            verdict.lost += abs(number - len(members))
            verdict.flaws.append(f"batch {batch_id} has {len(members)} of {number} jobs")
    unended = {job_id for job_id in told & set(jobs) if jobs[job_id].state not in FINAL}
    verdict.lost += len(missing) + len(unended)
    verdict.flaws += [f"lost: {job_id}" for job_id in sorted(missing)]
    verdict.flaws += [f"{job_id} is still {jobs[job_id].state}: {_said(jobs[job_id])}" for job_id in sorted(unended)]
    new = told - promises.judged
    promises.judged |= told
    verdict.accepted = len(new)
    for job_id in sorted(new & set(jobs)):
        job = jobs[job_id]
        verdict.succeeded += job.state == JobState.SUCCEEDED
        verdict.failed += job.state == JobState.FAILED
        verdict.cancelled += job.state == JobState.CANCELLED
        wanted = promises.must_fail.get(job_id)
        if wanted is not None and job.error_code != wanted:
            verdict.flaws.append(f"{job_id} should have failed as {wanted} and is {job.state} {_said(job)}")
        if wanted is None and job.state == JobState.FAILED:
            verdict.flaws.append(f"{job_id} failed: {_said(job)}")
        if job.state == JobState.CANCELLED and job_id not in promises.may_cancel:
            verdict.flaws.append(f"{job_id} was cancelled by nobody")
    for job_id in set(jobs) - told:
        batch_id = jobs[job_id].batch_id
        # a batch whose submission died half way was never accepted: it is cancelled, and none of its jobs is rendered
        given_up = batch_id is not None and batches[batch_id] == "cancelled" and jobs[job_id].state == JobState.CANCELLED
        if not given_up:
            verdict.ghosts += 1
            verdict.flaws.append(f"{job_id} ({jobs[job_id].state}) was promised to nobody")


def _check_rows(verdict: Verdict, jobs: dict[str, Job], rows: list[Image]) -> None:
    places = Counter((row.job_id, row.index) for row in rows)
    for place, number in places.items():
        if number > 1:
            verdict.doubled += 1
            verdict.flaws.append(f"{number} rows for {place}")
    for row in rows:
        match, job = JOB_KEY.match(row.storage_key), jobs.get(row.job_id)
        if match is None or job is None or int(match["attempt"]) != job.attempt:
            verdict.ghosts += 1
            verdict.flaws.append(f"{row.storage_key} is not of the attempt that ended its job ({job and job.attempt})")
    by_job = Counter(row.job_id for row in rows)
    for job in jobs.values():
        wanted = job.count if job.state == JobState.SUCCEEDED else 0
        if by_job[job.id] > wanted:
            verdict.ghosts += 1
            verdict.flaws.append(f"{job.id} is {job.state} and has {by_job[job.id]} images of {wanted}")
        elif by_job[job.id] < wanted:
            verdict.lost += 1
            verdict.flaws.append(f"{job.id} succeeded and has {by_job[job.id]} images of {wanted}")


def _check_files(verdict: Verdict, farm: Farm, rows: list[Image]) -> None:
    outputs = LocalOutputStore(farm.settings.outputs)
    keys = {row.storage_key for row in rows}
    verdict.strays = len(farm.files() - keys)
    collect_orphan_files(farm.store, outputs, older_than_s=-1.0)
    left = farm.files()
    verdict.orphans = len(left - keys)
    verdict.flaws += [f"orphan {key}" for key in sorted(left - keys)]
    per_place = Counter((match["job"], match["index"]) for match in map(JOB_KEY.match, left) if match)
    for place, number in per_place.items():
        if number > 1:
            verdict.doubled += 1
            verdict.flaws.append(f"{number} files for {place}")
    for row in rows:
        if row.storage_key not in left:
            verdict.ghosts += 1
            verdict.flaws.append(f"{row.id} has no file {row.storage_key}")
        elif hashlib.sha256(outputs.read(row.storage_key)).hexdigest() != row.sha256:
            verdict.flaws.append(f"{row.storage_key} is not what its row says")


def _check_books(verdict: Verdict, farm: Farm) -> None:
    with farm.store.read() as session:
        open_attempts = session.scalar(
            select(func.count())
            .select_from(Attempt)
            .join(Job, Job.id == Attempt.job_id)
            .where(Attempt.ended_at.is_(None), Job.state.in_(list(FINAL)))
        )
        ends = session.execute(
            select(Event.subject, func.count())
            .where(Event.kind == "job.succeeded")
            .group_by(Event.subject)
            .having(func.count() > 1)
        ).all()
        verdict.drift = session.scalar(select(SweepState.drift)) or 0
        kept = session.scalar(select(func.sum(Backlog.queued) + func.sum(Backlog.running))) or 0
        counted = session.scalar(select(func.count()).select_from(Job).where(Job.state.in_([JobState.QUEUED, JobState.RUNNING])))
    # an abandoned transaction may still lock a counter's row; the server ends it, as it does for the farm's own writers
    verdict.drift += farm.store.run_with_retry(reconcile_backlog)
    with farm.store.write() as session:
        while seal(session):
            pass
    with farm.store.read() as session:
        report = verify(session)
    verdict.doubled += len(ends)
    verdict.chain_whole = report.whole
    verdict.flaws += [f"{subject} succeeded {number} times" for subject, number in ends]
    if open_attempts:
        verdict.flaws.append(f"{open_attempts} attempts of ended jobs are still open")
    if verdict.drift or kept != counted:
        verdict.flaws.append(f"the counters drifted: {verdict.drift} rows, {kept} kept, {counted} counted")
    if not report.whole:
        verdict.flaws.append(f"the audit chain is broken at {report.broken_at}: {report.detail}")


def _said(job: Any) -> str:
    return f"{job.error_code} {job.error_detail or ''} (attempt {job.attempt}, crashes {job.crashes})"
