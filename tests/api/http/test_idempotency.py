"""Idempotency-Key: the same request is done once, however often and however concurrently it is sent."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, update

from imagefarm.auth import Scope
from imagefarm.store import idempotency
from imagefarm.store.migrate import DEFAULT_TENANT
from imagefarm.store.models import Idempotency, Job
from tests.api.farm_api import FarmApi, problem


@pytest.fixture
def key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


def jobs_called(api: FarmApi, custom_id: str) -> int:
    with api.app_context.store.read() as session:
        return session.scalar(select(func.count()).select_from(Job).where(Job.custom_id == custom_id)) or 0


def test_the_same_request_is_replayed(api: FarmApi, key: dict[str, str]) -> None:
    body = {"prompt": "a cup", "custom_id": key["Idempotency-Key"]}
    first = api.http.post("/api/v1/jobs", json=body, headers=key)
    api.http.post(f"/api/v1/jobs/{first.get_json()['id']}/cancel")
    second = api.http.post("/api/v1/jobs", json=body, headers=key)
    assert (second.status_code, second.get_json()) == (202, first.get_json())  # as it was, not as it is
    assert second.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert jobs_called(api, body["custom_id"]) == 1


def test_another_body_is_refused(api: FarmApi, key: dict[str, str]) -> None:
    api.submit("a cup", headers=key)
    body = problem(api.http.post("/api/v1/jobs", json={"prompt": "a mug"}, headers=key), 422)
    assert body["type"] == "/problems/idempotency_key_reused"


def test_a_key_belongs_to_its_tenant(api: FarmApi, key: dict[str, str]) -> None:
    mine = api.submit("a cup", headers=key)
    theirs = api.submit("a mug", headers=key | api.key("other", Scope.SUBMIT))
    assert mine["id"] != theirs["id"]


def test_a_refused_request_leaves_the_key_free(api: FarmApi, key: dict[str, str]) -> None:
    problem(api.http.post("/api/v1/jobs", json={"prompt": "a cup", "width": 65}, headers=key), 422)
    api.submit("a cup", headers=key)


def test_many_at_once_make_one_job(api: FarmApi, key: dict[str, str]) -> None:
    body = {"prompt": "a cup", "custom_id": key["Idempotency-Key"]}

    def send(_: int) -> tuple[int, str]:
        response = api.app.test_client().post("/api/v1/jobs", json=body, headers=key)
        return response.status_code, response.get_json()["id"]

    with ThreadPoolExecutor(12) as pool:
        answers = set(pool.map(send, range(24)))
    assert len(answers) == 1
    assert answers.pop()[0] == 202
    assert jobs_called(api, body["custom_id"]) == 1


def test_a_replay_with_wait_answers_the_job_as_it_is(api: FarmApi, key: dict[str, str]) -> None:
    job_id = api.submit("a cup", headers=key)["id"]
    api.render(api.claim(job_id))
    response = api.http.post("/api/v1/jobs", json={"prompt": "a cup"}, headers=key | {"Prefer": "wait=5"})
    assert (response.status_code, response.get_json()["id"], response.get_json()["state"]) == (200, job_id, "succeeded")


def test_work_of_many_transactions(api: FarmApi) -> None:
    """A key that was taken and committed tells others that its request still runs; it ages, and can be given back."""
    store, key = api.app_context.store, str(uuid.uuid4())

    def take(body: str) -> idempotency.Stored | None:
        with store.write() as session:
            return idempotency.take(session, DEFAULT_TENANT, key, body * 64)

    def age(seconds: float) -> None:
        with store.write() as session:
            session.execute(update(Idempotency).where(Idempotency.key == key).values(created_at=Idempotency.created_at - seconds))

    assert take("a") is None
    with pytest.raises(idempotency.StillRunning):
        take("a")
    with pytest.raises(idempotency.KeyReused):
        take("b")
    with store.write() as session:
        idempotency.give_back(session, DEFAULT_TENANT, key)
    assert take("a") is None
    age(idempotency.STALE_S + 1)
    assert take("c") is None  # the one before died
    with store.write() as session:
        idempotency.keep(session, DEFAULT_TENANT, key, 202, "{}")
        idempotency.give_back(session, DEFAULT_TENANT, key)  # an answer stays
    assert take("c") == idempotency.Stored(202, "{}")
    age(idempotency.KEEP_S + 1)
    with store.write() as session:
        assert idempotency.forget_old(session) >= 1
    assert take("d") is None
