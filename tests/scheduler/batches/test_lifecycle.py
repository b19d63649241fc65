"""A batch's life on both databases: pause, resume, canary, cancel, retry, and what the sweep does for a maker that died."""

from __future__ import annotations

import queue

import pytest
from sqlalchemy import func, select, update

from imagefarm.errors import NotFound
from imagefarm.states import BatchState, JobState
from imagefarm.store import Store, db_now
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Backlog, Batch, Event, Job
from scheduler.batches import lifecycle, sweep_steps
from scheduler.queue.cancel import cancel_job
from scheduler.queue.finish import fail
from scheduler.queue.retry import Failure, FailureClass
from tests.scheduler.batches.conftest import BATCHES, BulkFarm

INPUT = Failure(FailureClass.INPUT, "bad_input", "the model cannot take it")


def table(rows: int) -> str:
    return "sku,prompt\n" + "".join(f"S{n},a mug {n}\n" for n in range(rows))


def state(farm: BulkFarm, batch_id: str) -> str:
    return str((farm.get(batch_id).json or {})["state"])


def end(farm: BulkFarm, failing: int = 0) -> None:
    """Render all that is queued; the first `failing` jobs fail."""
    while jobs := farm.claim("wrk_a", images=8):
        for job in jobs:
            if failing:
                fail(farm.store, job, INPUT, farm.settings)
                failing -= 1
            else:
                farm.finish(job)


def test_pause_and_resume(farm: BulkFarm) -> None:
    batch = farm.batch(table(5))["id"]
    (running,) = farm.claim("wrk_a", images=1)
    assert farm.act(batch, "pause").status_code == 200
    assert (state(farm, batch), farm.counts(batch)) == ("paused", {"held": 4, "running": 1})
    assert farm.claim("wrk_b") == []
    farm.finish(running)
    farm.sweep()
    assert state(farm, batch) == "paused"
    assert farm.act(batch, "pause").status_code == 200  # again changes nothing
    response = farm.act(batch, "resume")
    assert (response.json or {})["state"] == "running"
    assert farm.counts(batch) == {"queued": 4, "succeeded": 1}
    end(farm)
    farm.sweep()
    assert state(farm, batch) == "done"
    for act in ("pause", "resume", "cancel", "approve"):
        refused = farm.act(batch, act)
        assert refused.status_code == 409, act
        assert batch in (refused.json or {})["detail"]
    farm.check_books()


def test_a_long_table_is_answered_when_its_first_jobs_are_in_the_queue(farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "CHUNK", 2)
    monkeypatch.setattr(lifecycle, "MAX_SYNC_JOBS", 4)
    asked: queue.SimpleQueue[tuple[Store, str]] = queue.SimpleQueue()
    monkeypatch.setattr(lifecycle, "_reconcile_remaining_jobs", lambda store, batch_id: asked.put((store, batch_id)))
    batch = farm.batch(table(9))["id"]
    assert farm.counts(batch) == {"queued": 4, "held": 5}
    assert state(farm, batch) == "queued"
    monkeypatch.undo()
    lifecycle._reconcile_remaining_jobs(*asked.get(timeout=30))
    assert farm.counts(batch) == {"queued": 9}
    farm.check_books()


def test_a_canary_goes_first(farm: BulkFarm) -> None:
    response = farm.batch("sku,prompt\nA,\nB,b\nC,c\nD,d\nE,e\n", canary=2, on_error="skip")
    batch = response["id"]
    assert (response["state"], response["canary"]) == ("held", 2)
    assert farm.counts(batch) == {"queued": 2, "held": 2}
    assert (farm.get(batch).json or {}) | {"progress": None} == response
    assert farm.act(batch, "resume").status_code == 409
    farm.act(batch, "pause")
    assert farm.counts(batch) == {"held": 4}
    farm.act(batch, "resume")
    assert (state(farm, batch), farm.counts(batch)) == ("held", {"queued": 2, "held": 2})
    jobs = farm.claim("wrk_a", images=8)
    assert [job.recipe.prompt for job in jobs] == ["b", "c"]
    for job in jobs:
        farm.finish(job)
    farm.sweep()
    assert (state(farm, batch), farm.counts(batch)) == ("held", {"succeeded": 2, "held": 2})
    assert (farm.act(batch, "approve").json or {})["state"] == "running"
    assert farm.counts(batch) == {"succeeded": 2, "queued": 2}
    assert farm.act(batch, "approve").status_code == 200
    end(farm)
    farm.sweep()
    assert state(farm, batch) == "done"
    farm.check_books()


def test_a_canary_of_all_rows_holds_nothing(farm: BulkFarm) -> None:
    response = farm.batch(table(3), canary=3)
    assert (response["state"], farm.counts(response["id"])) == ("queued", {"queued": 3})


def test_approving_a_paused_canary_leaves_it_paused(farm: BulkFarm) -> None:
    batch = farm.batch(table(3), canary=1)["id"]
    farm.act(batch, "pause")
    assert (farm.act(batch, "approve").json or {})["state"] == "paused"
    farm.act(batch, "resume")
    assert farm.counts(batch) == {"queued": 3}


def test_cancel(farm: BulkFarm) -> None:
    batch = farm.batch(table(5))["id"]
    one, two = farm.claim("wrk_a", images=2)
    farm.finish(one)
    response = farm.act(batch, "cancel")
    assert (response.json or {})["state"] == "cancelled"
    assert farm.counts(batch) == {"succeeded": 1, "cancelled": 4}
    assert farm.job(two.id).state == JobState.CANCELLED
    assert (farm.get(batch).json or {})["finished_at"] is not None
    assert farm.act(batch, "cancel").status_code == 200
    assert farm.act(batch, "retry-failed").status_code == 409
    farm.check_books()


def test_retry_what_failed(farm: BulkFarm) -> None:
    batch = farm.batch(table(4))["id"]
    end(farm, failing=2)
    farm.sweep()
    assert (state(farm, batch), farm.counts(batch)) == ("done", {"failed": 2, "succeeded": 2})
    response = farm.act(batch, "retry-failed")
    assert (response.json or {})["state"] == "running"
    assert farm.counts(batch) == {"queued": 2, "succeeded": 2}
    end(farm)
    farm.sweep()
    assert (state(farm, batch), farm.counts(batch)) == ("done", {"succeeded": 4})
    assert farm.act(batch, "retry-failed").status_code == 200
    assert state(farm, batch) == "done"
    farm.check_books()


def test_what_becomes_of_a_batchs_jobs_is_told_once_for_all_of_them(farm: BulkFarm) -> None:
    batch = farm.batch(table(3))["id"]
    for act in ("pause", "resume"):
        assert farm.act(batch, act).status_code == 200
    with farm.store.read() as session:
        events = session.scalars(select(Event).where(Event.subject == batch).order_by(Event.id)).all()
    told = [(event.kind, event.data.get("jobs")) for event in events]
    assert told[-4:] == [("batch.paused", None), ("batch.held", 3), ("batch.resumed", None), ("batch.released", 3)]


def test_what_was_cancelled_is_not_retried_with_what_failed(farm: BulkFarm) -> None:
    batch = farm.batch(table(3))["id"]
    with farm.store.read() as session:
        unwanted = session.scalars(select(Job.id).order_by(Job.row.desc())).first() or ""
    cancel_job(farm.store, unwanted, DEFAULT_TENANT)
    end(farm, failing=1)
    farm.sweep()
    farm.act(batch, "retry-failed")
    assert farm.counts(batch) == {"queued": 1, "succeeded": 1, "cancelled": 1}
    farm.check_books()


@pytest.mark.parametrize("act", ["pause", "resume", "approve", "cancel", "retry_failed"])
def test_no_act_reaches_another_tenants_batch(farm: BulkFarm, act: str) -> None:
    batch = farm.batch(table(2))["id"]
    before = farm.counts(batch)
    with pytest.raises(NotFound):
        getattr(lifecycle, act)(farm.store, batch, "tenant_other")
    assert (state(farm, batch), farm.counts(batch)) == ("queued", before)


def test_a_job_that_is_retried_opens_its_batch_again(farm: BulkFarm) -> None:
    batch = farm.batch(table(4))["id"]
    end(farm, failing=2)
    farm.sweep()
    assert state(farm, batch) == "done"
    with farm.store.read() as session:
        one = session.scalars(select(Job.id).where(Job.state == JobState.FAILED)).first()
    for path, body in ((f"/api/v1/jobs/{one}/retry", {}), ("/api/v1/jobs/retry", {"state": ["failed"], "expected": 1})):
        assert farm.client.post(path, json=body).status_code in {200, 202}
        assert (farm.counts(batch)["queued"], (farm.get(batch).json or {})["finished_at"]) == (1, None), path
        assert state(farm, batch) != "done"
        end(farm)
        farm.sweep()
        assert state(farm, batch) == "done"
    assert farm.counts(batch) == {"succeeded": 4}
    farm.check_books()


def test_many_jobs_move_in_chunks(farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "CHUNK", 3)
    monkeypatch.setattr("scheduler.batches.table.spool.CHUNK_JOBS", 4)
    batch = farm.batch(table(10))["id"]
    assert farm.counts(batch) == {"queued": 10}
    farm.act(batch, "pause")
    assert farm.counts(batch) == {"held": 10}
    farm.act(batch, "resume")
    end(farm, failing=7)
    assert farm.counts(batch) == {"failed": 7, "succeeded": 3}
    farm.act(batch, "retry-failed")
    assert farm.counts(batch) == {"queued": 7, "succeeded": 3}
    farm.act(batch, "cancel")
    assert farm.counts(batch) == {"cancelled": 7, "succeeded": 3}
    farm.check_books()


def test_the_sweep_lets_go_what_its_maker_could_not(farm: BulkFarm) -> None:
    batch = farm.batch(table(5), canary=1)["id"]
    with farm.store.write() as session:  # as if the maker died right after its commit
        session.execute(update(Batch).values(state=BatchState.QUEUED))
    farm.sweep()
    assert farm.counts(batch) == {"queued": 5}
    with farm.store.write() as session:
        session.execute(update(Batch).values(state=BatchState.CANCELLED))
    farm.sweep()
    assert farm.counts(batch) == {"cancelled": 5}
    farm.check_books()


def test_a_batch_that_the_farm_stopped_says_why_until_it_is_resumed(farm: BulkFarm) -> None:
    batch = farm.batch(table(3))["id"]
    assert (farm.get(batch).json or {})["stopped"] is None
    with farm.store.write() as session:
        assert lifecycle.stop(session, batch, "bad_prompt", 9)
    farm.sweep()
    assert (farm.get(batch).json or {})["stopped"] == {"error": "bad_prompt", "failed": 9}
    page = farm.client.get(f"/batches/{batch}").get_data(as_text=True)
    assert "Stopped: 9 jobs failed with bad_prompt. Fix the cause, then resume." in page
    assert (farm.act(batch, "resume").json or {})["stopped"] is None
    assert "Stopped:" not in farm.client.get(f"/batches/{batch}").get_data(as_text=True)


def test_a_sweep_reconciles_a_part_of_a_long_table_and_says_that_its_lane_has_work(
    farm: BulkFarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "CHUNK", 2)
    monkeypatch.setattr(sweep_steps, "MAX_SWEEP_CHUNKS", 2)
    chunks: list[int] = []
    reconcile_jobs = lifecycle.reconcile_jobs
    monkeypatch.setattr(
        lifecycle, "reconcile_jobs", lambda session, one: chunks.append(reconcile_jobs(session, one)) or chunks[-1]
    )
    batch = farm.batch(table(7), canary=1)["id"]
    with farm.store.write() as session:  # as if the maker died right after its commit
        session.execute(update(Job).values(state=JobState.HELD))
        session.execute(update(Backlog).values(queued=0))
        session.execute(update(Batch).values(state=BatchState.QUEUED))
    chunks.clear()
    report = farm.sweep()
    assert (report.steps["jobs_reconciled"], report.lanes, farm.counts(batch)) == (4, {"demo": 4}, {"queued": 4, "held": 3})
    report = farm.sweep()
    assert (report.steps["jobs_reconciled"], report.lanes, farm.counts(batch)) == (3, {"demo": 7}, {"queued": 7})
    assert chunks == [2, 2, 2, 1, 0], "each in a transaction of its own"
    assert farm.store.run_with_retry(sweep_steps.find_unreconciled) == []


def test_the_sweep_cancels_a_batch_that_was_never_completed(farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("scheduler.batches.create._commit", die)
        patch.setattr("scheduler.batches.lifecycle.cancel", die)
        with pytest.raises(Killed):
            farm.send(table(4))
    with farm.store.read() as session:
        batch = session.scalars(select(Batch)).one().id
    assert (state(farm, batch), farm.counts(batch)) == ("validating", {"held": 4})
    assert farm.act(batch, "pause").status_code == 409
    farm.sweep()
    assert farm.counts(batch) == {"held": 4}  # perhaps it is only slow
    with farm.store.write() as session:
        session.execute(update(Job).values(created_at=db_now() - 2 * sweep_steps.STALE_S))
    farm.sweep()
    assert (state(farm, batch), farm.counts(batch)) == ("cancelled", {"cancelled": 4})
    farm.check_books()


def test_a_submission_that_breaks_off_is_cancelled_at_once(farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.batches.table.spool.CHUNK_JOBS", 2)
    from scheduler.batches import create

    real, calls = create._write, []

    def breaks(*args: object, **named: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("the disk is full")
        real(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(create, "_write", breaks)
    assert farm.send(table(6)).status_code == 500
    with farm.store.read() as session:
        assert session.scalars(select(Batch.state)).all() == [BatchState.CANCELLED]
        assert dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all()) == {"cancelled": 2}
    assert farm.claim("wrk_a") == []


def test_another_tenants_batch_does_not_exist(farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    from imagefarm.auth import create_key

    batch = farm.batch(table(1))["id"]
    assert farm.app is not None
    from api.http.context import app_context_of

    monkeypatch.setattr(app_context_of(farm.app).settings, "auth", "keys")
    key = create_key(farm.store, name="k", tenant="other").key
    headers = {"Authorization": f"Bearer {key}"}
    for what in ("", "/manifest.csv", "/manifest.jsonl", "/errors.csv", "/archive.zip"):
        assert farm.client.get(f"{BATCHES}/{batch}{what}", headers=headers).status_code == 404
        assert farm.client.get(f"{BATCHES}/{batch}{what}").status_code == 401
    for act in ("pause", "resume", "cancel", "retry-failed", "approve"):
        assert farm.client.post(f"{BATCHES}/{batch}/{act}", headers=headers).status_code == 404
    assert (farm.client.get(BATCHES, headers=headers).json or {})["items"] == []
    with farm.store.read() as session:
        assert session.scalars(select(Job.state)).all() == [JobState.QUEUED]


def test_unknown_batches(farm: BulkFarm) -> None:
    assert farm.get("batch_01JD0000000000000000000000").status_code == 404
    assert farm.act("nonsense", "cancel").status_code == 404
