"""Why a job waits: each cause has its sentence, and each sentence its Chinese."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import insert, update

from imagefarm.states import BatchState, JobState, PriorityClass, WorkerState
from imagefarm.store import db_now
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import ApiKey, Batch, Job, Tenant
from scheduler.queue import workers
from scheduler.queue.cancel import cancel_job
from scheduler.queue.finish import fail
from scheduler.queue.retry import Failure, FailureClass
from scheduler.wiring import PENDING_MESSAGES, make_pending_reasons
from tests.small_farm import SmallFarm
from tools import translations


@pytest.fixture
def farm(farm: SmallFarm) -> SmallFarm:
    """With a worker that is ready and has the demo model."""
    farm.worker("wrk_a")
    ready(farm, "demo")
    return farm


def ready(farm: SmallFarm, *resident: str, worker: str = "wrk_a") -> None:
    workers.heartbeat(farm.store, worker, WorkerState.READY, resident=list(resident), load={})


def pending_reason(farm: SmallFarm, job_id: str) -> str:
    """The sentence that the job waits by; its values are all that the sentence needs."""
    with farm.store.read() as session:
        reason = make_pending_reasons(farm.settings).explain(session, session.get_one(Job, job_id))
    assert reason.code in PENDING_MESSAGES
    assert set(reason.sentences) <= set(PENDING_MESSAGES.values())
    return reason.message


def test_every_sentence_is_marked_for_translation() -> None:
    """`tests/api/pages/test_translations.py` checks that each has its translation, with the same values."""
    assert set(PENDING_MESSAGES.values()) <= {entry.id for entry in translations.extract()}


def test_a_program_reads_the_code_and_the_values(farm: SmallFarm) -> None:
    _, second = farm.submit(2, model="sd15")
    with farm.store.read() as session:
        reason = make_pending_reasons(farm.settings).explain(session, session.get_one(Job, second))
    assert (reason.code, reason.values) == ("model_not_loaded", {"ahead": 1, "model": "sd15"})


def test_position(farm: SmallFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, third = farm.submit(3)
    assert pending_reason(farm, first) == "Next in line."
    assert pending_reason(farm, third) == "Your jobs ahead of this one: 2."
    monkeypatch.setattr("scheduler.queue.pending_reason.MAX_COUNTED", 2)
    assert pending_reason(farm, third) == "Your jobs ahead of this one: 2 or more."


def test_position_is_that_of_its_own_flow_in_its_order(farm: SmallFarm) -> None:
    farm.submit(1, tenant=farm.tenant("other"))
    farm.submit(1, priority=PriorityClass.BULK)
    farm.submit(1, model="sd15")
    first, last = farm.submit(2)
    assert pending_reason(farm, first) == "Next in line."
    farm.set(last, rank=-1)
    assert pending_reason(farm, last) == "Next in line."
    assert pending_reason(farm, first) == "Your jobs ahead of this one: 1."


def test_cap_of_every_tenant(farm: SmallFarm) -> None:
    farm.settings = farm.settings.model_copy(update={"max_running_per_tenant": 1})
    *_, last = farm.submit(2)
    farm.claim("wrk_a", images=1)
    assert pending_reason(farm, last) == "Your limit of running jobs is reached: 1."


def test_the_only_worker_starts_or_has_gone(farm: SmallFarm) -> None:
    (job_id,) = farm.submit(1)
    workers.heartbeat(farm.store, "wrk_a", WorkerState.STARTING, resident=[], load={})
    assert pending_reason(farm, job_id) == "The worker is starting."
    workers.mark_offline(farm.store, "wrk_a", farm.settings, "stopped", clean=True)
    assert pending_reason(farm, job_id) == "No worker serves model demo now."


def test_what_became_of_it(farm: SmallFarm) -> None:
    held, done, failed, cancelled = farm.submit(4)
    farm.set(held, state=JobState.HELD)
    assert pending_reason(farm, held) == "Held."
    running, bad, unwanted = farm.claim("wrk_a")
    assert [running.id, bad.id, unwanted.id] == [done, failed, cancelled]
    assert pending_reason(farm, done) == "Rendering, attempt 1."
    farm.finish(running)
    fail(farm.store, bad, Failure(FailureClass.INPUT, "bad_picture", "cannot be read"), farm.settings)
    cancel_job(farm.store, cancelled, DEFAULT_TENANT)
    assert [pending_reason(farm, each) for each in (done, failed, cancelled)] == [
        "Done.",
        "Failed: cannot be read.",
        "Cancelled.",
    ]


def test_cap(farm: SmallFarm) -> None:
    with farm.store.write() as session:
        session.execute(update(Tenant).where(Tenant.id == DEFAULT_TENANT).values(limits={"running": 1}))
    *_, last = farm.submit(2)
    farm.claim("wrk_a", images=1)
    assert pending_reason(farm, last) == "Your limit of running jobs is reached: 1."


def test_cap_of_a_model(farm: SmallFarm) -> None:
    farm.settings = farm.settings.model_copy(update={"max_running_per_model": {"demo": 1}})
    *_, last = farm.submit(2)
    assert pending_reason(farm, last) == "Your jobs ahead of this one: 1."
    farm.claim("wrk_a", images=1)
    assert pending_reason(farm, last) == "The limit of running jobs of model demo is reached: 1."


def test_quota_of_a_key(farm: SmallFarm) -> None:
    key = {"tenant_id": DEFAULT_TENANT, "name": "shop", "prefix": "if_shop", "hash": "0" * 64, "scopes": []}
    with farm.store.write() as session:
        session.execute(insert(ApiKey).values(id="key_shop", limits={"running": 1}, created_at=db_now(), **key))
    first, last, free = farm.submit(3)
    for job_id in (first, last):
        farm.set(job_id, quota_id="key_shop")
    assert [job.id for job in farm.claim("wrk_a", images=1)] == [first]
    assert pending_reason(farm, last) == "The limit of running jobs of this key is reached: 1."
    assert pending_reason(farm, free) == "Your jobs ahead of this one: 1."


def test_model_swap(farm: SmallFarm) -> None:
    (job_id,) = farm.submit(1, model="sd15")
    assert pending_reason(farm, job_id).endswith("Model sd15 is not loaded yet; a worker will load it.")
    workers.report_model(farm.store, "sd15", "ready", load_s=12.0)
    assert pending_reason(farm, job_id).endswith("Model sd15 is not loaded yet; a worker will load it (about 12 s).")


def test_nobody_serves_the_model(farm: SmallFarm) -> None:
    (job_id,) = farm.submit(1, model="sdxl")
    assert pending_reason(farm, job_id) == "No worker serves model sdxl now."
    (job_id,) = farm.submit(1)
    workers.set_desired_state(farm.store, "wrk_a", WorkerState.DRAINING, by="test")
    assert pending_reason(farm, job_id) == "Waiting: all workers for model demo are draining or quarantined."


def test_no_memory(farm: SmallFarm) -> None:
    (job_id,) = farm.submit(1, model="sd15")
    other = farm.worker("wrk_b")
    ready(farm, worker=other)
    workers.report_insufficient_memory(farm.store, "wrk_a", "sd15", "its weights take 3.2 GiB, 2.0 GiB free")
    assert "a worker will load it" in pending_reason(farm, job_id), "the other may have the memory"
    workers.report_insufficient_memory(farm.store, other, "sd15", "its weights take 3.2 GiB, 1.0 GiB free")
    assert re.fullmatch(
        r"No worker has enough memory for model sd15: its weights take 3\.2 GiB, [12]\.0 GiB free\.", pending_reason(farm, job_id)
    )
    workers.report_insufficient_memory(farm.store, other, "sd15")
    assert "a worker will load it" in pending_reason(farm, job_id), "it was loaded after all"


def test_held(farm: SmallFarm) -> None:
    (job_id,) = farm.submit(1)
    with farm.store.write() as session:
        session.execute(
            insert(Batch).values(
                id="batch_a", tenant_id=DEFAULT_TENANT, name="mugs", state=BatchState.PAUSED, created_at=db_now()
            )
        )
    farm.set(job_id, state=JobState.HELD, batch_id="batch_a")
    assert pending_reason(farm, job_id) == "Held: batch 'mugs' is paused."
    with farm.store.write() as session:
        session.execute(update(Batch).values(state=BatchState.HELD))
    assert pending_reason(farm, job_id) == "Held: the batch is waiting for approval."
    with farm.store.write() as session:
        session.execute(update(Batch).values(state=BatchState.QUEUED))
    assert pending_reason(farm, job_id) == "Held: the rows of the batch enter the queue step by step."


def test_a_failure_before(farm: SmallFarm) -> None:
    (job_id,) = farm.submit(1)
    farm.set(job_id, attempt=1, not_before=farm.store.now() + 60)
    assert re.fullmatch(r"Waiting ([1-5]?\d|60) s before attempt 2, after a failure\.", pending_reason(farm, job_id))


def test_many_at_once_say_what_each_says(farm: SmallFarm) -> None:
    ready(farm)
    ids = farm.submit(3)
    farm.set(ids[0], state=JobState.RUNNING, attempt=1)
    farm.set(ids[1], model="nothing")
    with farm.store.read() as session:
        rows = [session.get_one(Job, job_id) for job_id in ids]
        sentences = [reason.message for reason in make_pending_reasons(farm.settings).explain_all(session, rows)]
    assert sentences == [pending_reason(farm, job_id) for job_id in ids]
    assert len(set(sentences)) == 3
