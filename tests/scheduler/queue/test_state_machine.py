"""The state machine of jobs against a simple model: any order of submits, claims, crashes, cancels, finishes and sweeps."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from imagefarm.catalogue import Catalogue
from imagefarm.errors import Conflict, LeaseLost
from imagefarm.settings import PROJECT_ROOT, load_settings
from imagefarm.states import FINAL, JobState
from imagefarm.store import Store
from imagefarm.store.migrate import DEFAULT_TENANT, migrate
from scheduler.queue import lease
from scheduler.queue.cancel import cancel_job
from scheduler.queue.claim import ClaimedJob
from scheduler.queue.finish import fail, release
from scheduler.queue.retry import Failure, FailureClass
from tests.small_farm import SmallFarm

CATALOGUE = Catalogue.read(PROJECT_ROOT / "models.toml")
OWNERS = ("wrk_a", "wrk_b")


class JobLife(RuleBasedStateMachine):
    """The model: the state each job must be in, and which (attempt, owner) holds it."""

    jobs = Bundle("jobs")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        store = Store(f"sqlite:///{self.folder.name}/farm.db", pool_size=2)
        migrate(store)
        self.farm = SmallFarm(store, CATALOGUE, load_settings(data_dir=Path(self.folder.name)))
        self.state: dict[str, JobState] = {}
        self.holder: dict[str, tuple[int, str] | None] = {}
        self.crashes: dict[str, int] = {}
        self.died_with: set[tuple[str, str]] = set()
        """Every (owner, job) of a death."""

    def teardown(self) -> None:
        self.farm.check_books()
        self.farm.store.close()
        self.folder.cleanup()

    @rule(target=jobs, number=st.integers(1, 2), count=st.integers(1, 2))
    def submit(self, number: int, count: int):  # type: ignore[no-untyped-def]
        ids = self.farm.submit(number, count=count)
        for job_id in ids:
            self.state[job_id], self.holder[job_id], self.crashes[job_id] = JobState.QUEUED, None, 0
        return multiple(*ids)

    @rule(target=claims, owner=st.sampled_from(OWNERS), images=st.integers(1, 4))
    def claim(self, owner: str, images: int):  # type: ignore[no-untyped-def]
        claimed = self.farm.claim(owner, images=images, quantum_s=100.0)
        waiting = [job_id for job_id, state in self.state.items() if state is JobState.QUEUED]
        assert bool(claimed) == bool(waiting)
        if any(self.crashes[job.id] for job in claimed):
            assert len(claimed) == 1
        for job in claimed:
            assert self.state[job.id] is JobState.QUEUED
            self.state[job.id], self.holder[job.id] = JobState.RUNNING, (job.attempt, owner)
        return multiple(*claimed)

    def holds(self, job: ClaimedJob) -> bool:
        return self.state[job.id] is JobState.RUNNING and self.holder[job.id] == (job.attempt, job.owner)

    @rule(job=claims)
    def finish(self, job: ClaimedJob) -> None:
        if self.holds(job):
            self.farm.finish(job)
            self.state[job.id] = JobState.SUCCEEDED
        elif not (self.state[job.id] is JobState.SUCCEEDED and self.holder[job.id] == (job.attempt, job.owner)):
            try:
                self.farm.finish(job)
            except LeaseLost:
                return
            raise AssertionError("a lost attempt was allowed to write")

    @rule(job=claims, kind=st.sampled_from([FailureClass.MODEL, FailureClass.UNKNOWN]))
    def fail(self, job: ClaimedJob, kind: FailureClass) -> None:
        held = self.holds(job)
        state = fail(self.farm.store, job, Failure(kind, "x", "y"), self.farm.settings)
        assert (state is not None) == held
        if state is JobState.QUEUED:
            assert kind is FailureClass.UNKNOWN
            self.farm.set(job.id, not_before=0.0)
        if state is not None:
            self.state[job.id], self.holder[job.id] = state, None

    @rule(job=claims)
    def give_back(self, job: ClaimedJob) -> None:
        release(self.farm.store, [job], "drain")
        if self.holds(job):
            self.state[job.id], self.holder[job.id] = JobState.QUEUED, None

    def held_by(self, owner: str) -> list[str]:
        return [
            job_id
            for job_id, holder in self.holder.items()
            if self.state[job_id] is JobState.RUNNING and holder and holder[1] == owner
        ]

    @rule(owner=st.sampled_from(OWNERS), self_inflicted=st.booleans())
    def worker_dies(self, owner: str, self_inflicted: bool) -> None:
        lost = self.held_by(owner)
        told = lease.expire_owner(self.farm.store, owner, self.farm.settings, "killed", self_inflicted=self_inflicted)
        assert told == len(lost)
        self._crashed(lost, owner, len(lost), self_inflicted)

    @rule(job=claims)
    def lease_runs_out(self, job: ClaimedJob) -> None:
        held = self.holds(job)
        holding = len(self.held_by(job.owner))
        if held:
            self.farm.set(job.id, lease_until=self.farm.store.now() - 1)
        report = self.farm.sweep()
        assert report.requeued + report.failed == int(held)
        if held:
            self._crashed([job.id], job.owner, holding, False)

    def _crashed(self, lost: list[str], owner: str, holding: int, self_inflicted: bool) -> None:
        most = self.farm.settings.max_crashes
        before = set(self.died_with)
        for job_id in lost:
            innocent = self.crashes[job_id] > 0 and holding > 1
            self.crashes[job_id] += not innocent
            mine = {name for name, other in before if other == job_id} | {owner}
            chance = any(name not in mine for name, _ in before)
            enough = self.crashes[job_id] >= (most if self_inflicted or not chance else 2 * most)
            poison = enough and not innocent
            self.state[job_id], self.holder[job_id] = (JobState.FAILED if poison else JobState.QUEUED), None
            self.died_with.add((owner, job_id))

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        before = self.state[job_id]
        try:
            won = cancel_job(self.farm.store, job_id, DEFAULT_TENANT)
        except Conflict:
            assert before in FINAL - {JobState.CANCELLED}
            return
        assert won == (before not in FINAL)
        self.state[job_id] = JobState.CANCELLED

    @invariant()
    def sql_agrees(self) -> None:
        for job_id, state in self.state.items():
            job = self.farm.job(job_id)
            assert job.state == state
            assert self.farm.images(job_id) == (job.count if state is JobState.SUCCEEDED else 0)
            assert (job.owner is None) == (state is not JobState.RUNNING)


TestJobLife = JobLife.TestCase
TestJobLife.settings = settings(
    max_examples=12, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
