"""A small farm in SQL for tests of the scheduler: tenants, workers and jobs, without processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.orm import Session

from imagefarm.auth import KeyQuota
from imagefarm.catalogue import Catalogue
from imagefarm.recipe import JobRequest
from imagefarm.settings import Settings
from imagefarm.states import JobState, PriorityClass
from imagefarm.store import Store, db_now
from imagefarm.store.audit import seal, verify
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Backlog, Image, Job, Tenant
from scheduler.queue import finish, workers
from scheduler.queue.admission import submit_jobs
from scheduler.queue.claim import ClaimedJob, ClaimLimits, claim
from scheduler.queue.new_job import make_job
from scheduler.queue.transition import ChangedJob, change_state
from scheduler.recovery.sweep import SweepReport, sweep
from scheduler.wiring import SWEEP_STEPS


def hold_where(session: Session, where: Sequence[ColumnElement[bool]], *, by: str) -> list[ChangedJob]:
    """Hold waiting jobs, each with an event of its own."""
    return change_state(session, where, JobState.QUEUED, JobState.HELD, event="job.held", data={"by": by})


def release_held_where(session: Session, where: Sequence[ColumnElement[bool]], *, by: str) -> list[ChangedJob]:
    """Queue held jobs, each with an event of its own."""
    return change_state(session, where, JobState.HELD, JobState.QUEUED, event="job.hold_released", data={"by": by})


@dataclass
class SmallFarm:
    """What the tests of the scheduler act on."""

    store: Store
    catalogue: Catalogue
    settings: Settings
    serves: list[str] = field(default_factory=lambda: ["demo", "sd15"])

    def tenant(self, name: str, weight: float = 1.0) -> str:
        tenant_id = f"tenant_{name}"
        with self.store.write() as session:
            session.execute(insert(Tenant).values(id=tenant_id, name=name, weight=weight, limits={}, created_at=db_now()))
        return tenant_id

    def worker(self, worker_id: str) -> str:
        workers.register(
            self.store,
            workers.WorkerIdentity(
                id=worker_id, name=worker_id, host="here", pid=1, device="cpu", version="0", serves=self.serves
            ),
        )
        return worker_id

    def submit(
        self,
        number: int = 1,
        *,
        tenant: str = DEFAULT_TENANT,
        priority: PriorityClass = PriorityClass.INTERACTIVE,
        quota: KeyQuota | None = None,
        **fields: object,
    ) -> list[str]:
        requests = [JobRequest.model_validate({"prompt": f"picture {n}", "priority": priority, **fields}) for n in range(number)]
        jobs = [make_job(self.catalogue, request, tenant, costs={}) for request in requests]
        with self.store.write() as session:
            submit_jobs(session, jobs, self.settings, quota=quota)
        return [job.id for job in jobs]

    def claim(self, owner: str, images: int = 4, **limits: object) -> list[ClaimedJob]:
        return claim(
            self.store,
            owner,
            serves=self.serves,
            resident=["demo"],
            limits=ClaimLimits(images=images, **limits),  # type: ignore[arg-type]
        )

    def finish(
        self,
        job: ClaimedJob,
        actual_s: float | None = None,
        work: float = 0.0,
        *,
        on_commit: finish.OnCommit | None = None,
    ) -> list[str]:
        images = [
            finish.FinishedImage(
                index=index,
                seed=job.recipe.seed_of(index),
                storage_key=f"{job.id}/{index}-a{job.attempt}.png",
                format="png",
                width=64,
                height=64,
                bytes=1,
                sha256="0" * 64,
                pixel_sha256="0" * 64,
                ms=1.0,
            )
            for index in range(job.count)
        ]
        took_s = job.cost_s if actual_s is None else actual_s
        return finish.succeed(self.store, job, images, actual_s=took_s, work=work, on_commit=on_commit)

    def sweep(self, *, reconcile: bool = False) -> SweepReport:
        return sweep(self.store, self.settings, SWEEP_STEPS, reconcile=reconcile)

    def job(self, job_id: str) -> Job:
        with self.store.read() as session:
            return session.get_one(Job, job_id)

    def states(self) -> dict[str, int]:
        with self.store.read() as session:
            return dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())

    def images(self, job_id: str) -> int:
        with self.store.read() as session:
            return session.scalar(select(func.count()).select_from(Image).where(Image.job_id == job_id)) or 0

    def set(self, job_id: str, **values: object) -> None:
        with self.store.write() as session:
            session.execute(update(Job).where(Job.id == job_id).values(**values))

    def check_books(self) -> None:
        """Counters equal a recount, and the audit chain is whole."""
        with self.store.write() as session:
            while seal(session):
                pass
        with self.store.read() as session:
            counted: dict[tuple[str, str, str], list[int]] = {}
            for job in session.scalars(select(Job).where(Job.state.in_(["queued", "running"]))):
                key = (job.model, job.priority_class, job.tenant_id)
                counted.setdefault(key, [0, 0])[job.state == "running"] += 1
            kept = {
                (row.model, row.priority_class, row.tenant_id): [row.queued, row.running]
                for row in session.scalars(select(Backlog))
                if row.queued or row.running
            }
            assert kept == counted
            assert verify(session).whole
