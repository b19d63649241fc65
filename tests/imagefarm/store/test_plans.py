"""The indexes that the busy statements take, at a size at which another way would be felt, on both databases."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
from sqlalchemy import insert, text, update

from benchmarks.plans import plans_of
from imagefarm.catalogue import Catalogue
from imagefarm.recipe import JobRequest
from imagefarm.settings import Settings
from imagefarm.states import JobState
from imagefarm.store import Store, db_now
from imagefarm.store.bulk_insert import insert_many
from imagefarm.store.job_access_paths import JobFilter
from imagefarm.store.jobs import count_newer, list_jobs
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Attempt, Batch, Event, Job, SweepState, Tenant, Worker
from scheduler.queue.claim import ClaimLimits, claim
from scheduler.queue.new_job import make_job
from scheduler.queue.transition import add_to_backlog
from scheduler.recovery.backlog import reconcile_backlog
from scheduler.recovery.sweep import sweep
from scheduler.wiring import SWEEP_STEPS

JOBS = 8_000
LARGE = ("job", "attempt", "event")
TENANTS = (DEFAULT_TENANT, "tenant_b")
BATCHES = ("batch_a", "batch_b")


def job_id(number: int) -> str:
    return f"job_01{number:024d}"


def fill(store: Store, catalogue: Catalogue) -> None:
    """Half of the jobs queued, the rest ended long ago; those that failed are the oldest, all of one batch."""
    base = make_job(catalogue, JobRequest(prompt="a mug"), DEFAULT_TENANT, costs={}).columns()
    rows: list[dict[str, Any]] = []
    for n in range(JOBS):
        state = JobState.QUEUED if n > JOBS // 2 else JobState.FAILED if n < JOBS // 10 else JobState.SUCCEEDED
        batch = None if n % 50 == 9 else BATCHES[state != JobState.FAILED]
        places = {"tenant_id": TENANTS[n % 2], "batch_id": batch, "custom_id": f"row {n % 100}", "expires_at": 4e9}
        rows.append(base | {"id": job_id(n), "state": str(state), "created_at": float(n), "labels": {"n": str(n)}} | places)
    ended = [row for row in rows if row["state"] != JobState.QUEUED]
    with store.write() as session:
        session.execute(insert(Tenant).values(id="tenant_b", name="b", weight=1.0, limits={}, created_at=0.0))
        for batch_id in BATCHES:
            state = "running" if batch_id == "batch_b" else "done"
            session.add(Batch(id=batch_id, tenant_id=TENANTS[0], name=batch_id, state=state, created_at=0.0))
        for name in ("good", "bad", "other"):
            worker = {"host": "h", "pid": 1, "device": "cpu", "version": "0", "serves": ["demo"], "state": "ready"}
            session.add(Worker(id=f"wrk_{name}", name=name, started_at=0.0, heartbeat_at=4e9, **worker))
        session.flush()
        insert_many(session, Job, rows)
        tried = {"attempt": 1, "claimed_at": 0.0, "reason": None}
        good = [
            {"job_id": row["id"], "owner": "wrk_good", "ended_at": row["created_at"], "outcome": row["state"]} | tried
            for row in ended
        ]
        insert_many(session, Attempt, good)
        seals = [{"kind": "job.claimed", "subject": job_id(n), "seq": n + 1, "hash": f"{n:064d}"} for n in range(2000)]
        insert_many(session, Event, seals, tenant_id=None, data={}, at=0.0)
        for tenant in TENANTS:
            number = sum(row["state"] == JobState.QUEUED and row["tenant_id"] == tenant for row in rows)
            add_to_backlog(session, ("demo", base["priority_class"], tenant), queued=number)
    if not store.is_sqlite:
        with store.writer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


def read_whole(plans: dict[str, list[str]]) -> dict[str, list[str]]:
    """The statements whose plan goes through a large table from one end to the other."""
    whole = re.compile(rf"(?:SCAN|Seq Scan on) \"?(?:{'|'.join(LARGE)})\b")
    return {statement: plan for statement, plan in plans.items() if any(whole.search(line) for line in plan)}


def indexes(plans: dict[str, list[str]], table: str = "job") -> set[str]:
    """The indexes of a table that the plans take; SQLite's for a primary key is called pk too."""
    found = set(
        re.findall(rf"\b((?:ix|pk)_{table}\w*|sqlite_autoindex_{table}_1)", "\n".join(line for p in plans.values() for line in p))
    )
    return {f"pk_{table}" if name.startswith("sqlite") else name for name in found}


@pytest.fixture
def large(store: Store, catalogue: Catalogue) -> Store:
    fill(store, catalogue)
    return store


F = JobFilter
LISTS: list[tuple[JobFilter, set[str]]] = [
    (F(), {"pk_job"}),
    (F(states=(JobState.FAILED,)), {"ix_job_state_id"}),
    (F(states=(JobState.FAILED, JobState.RUNNING)), {"ix_job_state_id", "pk_job"}),
    (F(model="demo"), {"ix_job_tenant_id_model_id", "pk_job"}),
    (F(model="sd15", states=(JobState.FAILED,)), {"ix_job_state_id"}),
    (F(tenant_id="tenant_b"), {"ix_job_tenant_id_id"}),
    (F(tenant_id="tenant_b", states=(JobState.FAILED,)), {"ix_job_tenant_id_state_id"}),
    (F(tenant_id="tenant_b", model="sd15"), {"ix_job_tenant_id_model_id"}),
    (F(tenant_id="tenant_b", text="no such words"), {"ix_job_tenant_id_id"}),
    (F(tenant_id="tenant_b", single=True), {"ix_job_single"}),
    (F(tenant_id="tenant_b", single=True, states=(JobState.FAILED,)), {"ix_job_tenant_id_state_id"}),
    (F(batch_id="batch_a"), {"ix_job_batch_id_id"}),
    (F(batch_id="batch_a", tenant_id="tenant_b", states=(JobState.HELD,)), {"ix_job_batch_id_state_id"}),
    (F(custom_id="row 7", batch_id="batch_a", model="sd15"), {"ix_job_custom_id_id"}),
    (F(labels=(("n", "3"),)), {"pk_job"}),
    (F(text="no such words", created_before=1e9), {"pk_job"}),
    (F(worker="good"), {"pk_job"}),
    (F(worker="good", tenant_id="tenant_b", text="no such words"), {"pk_job"}),
]


def test_lists_follow_the_index_of_their_filter(large: Store) -> None:
    def read(wanted: JobFilter, before: str | None) -> None:
        with large.read() as session:
            list_jobs(session, wanted, before=before, limit=50)
            count_newer(session, wanted, job_id(JOBS - 10), 50)

    for wanted, expected in LISTS:
        for before in (None, job_id(JOBS // 2)):
            plans = plans_of(large, partial(read, wanted, before), writes=False)
            assert read_whole(plans) == {}
            assert indexes(plans) == expected, (wanted, plans)
            if wanted.worker:
                assert indexes(plans, "attempt") == {"ix_attempt_owner_job_id"}
            assert not any("Sort Key: job.id" in line for plan in plans.values() for line in plan), plans


def test_a_claim_takes_the_head_of_its_lane(large: Store) -> None:
    limits = ClaimLimits(images=16, quantum_s=1e9)
    plans = plans_of(large, lambda: claim(large, "wrk_good", serves=["demo"], resident=["demo"], limits=limits))
    assert read_whole(plans) == {}
    picked = {statement: plan for statement, plan in plans.items() if "ORDER BY job.rank" in statement}
    assert indexes(picked) == {"ix_job_claim"}
    taken = {statement: plan for statement, plan in plans.items() if statement.startswith("UPDATE job")}
    assert indexes(taken) <= {"pk_job", "ix_job_state_id"}  # by id, or by state and id


def test_a_sweep_walks_through_no_large_table(large: Store, settings: Settings) -> None:
    limits = ClaimLimits(images=16, quantum_s=1e9)
    claimed = claim(large, "wrk_good", serves=["demo"], resident=["demo"], limits=limits)
    sweep(large, settings, SWEEP_STEPS)
    quiet = plans_of(large, partial(sweep, large, settings, SWEEP_STEPS))
    assert read_whole(quiet) == {}
    assert {"ix_job_lease", "ix_job_expires"} <= indexes(quiet), quiet
    # by state and id: yes; by the state alone: all that wait
    assert not any("ix_job_state_id (state=?)" in line for plan in quiet.values() for line in plan), quiet
    with large.write() as session:
        ids = [job.id for job in claimed[:12]]
        session.execute(update(Job).where(Job.id.in_(ids[:2])).values(lease_until=db_now() - 1))
        session.execute(update(Job).where(Job.id == job_id(JOBS - 1)).values(expires_at=db_now() - 1))
        for job in ids:
            session.execute(
                insert(Attempt).values(job_id=job, attempt=0, owner="wrk_bad", claimed_at=0.0, ended_at=db_now(), outcome="retry")
            )
        session.execute(update(SweepState).values(reap_after=0.0))
    busy = plans_of(large, partial(sweep, large, settings, SWEEP_STEPS))
    assert read_whole(busy) == {}
    assert {"ix_attempt_failure", "ix_attempt_succeeded"} <= indexes(busy, "attempt")


def test_counting_what_waits_holds_no_writer_up(large: Store, settings: Settings) -> None:
    sweep(large, settings, SWEEP_STEPS, reconcile=True)
    counted = plans_of(large, partial(sweep, large, settings, SWEEP_STEPS, reconcile=True))
    if large.is_sqlite:  # PostgreSQL's readers and writers are one engine
        assert not any("count(*)" in statement and "FROM job" in statement for statement in counted)
    with large.write() as session:
        assert reconcile_backlog(session) == 0
