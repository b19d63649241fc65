"""Keys that are replaced, and keys with limits of their own: every refusal says which limit, its value and when to come back."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from imagefarm.auth import Scope, authenticate_key, create_key, list_keys, revoke_key, rotate_key
from imagefarm.errors import Conflict, InvalidRequest
from imagefarm.store import db_now
from imagefarm.store.models import ApiKey, Tenant
from scheduler.queue.claim import LOOK_AHEAD
from tests.api.farm_api import FarmApi, problem


def limited(api: FarmApi, tenant: str, **limits: int) -> dict[str, str]:
    made = create_key(api.app_context.store, name="limited", tenant=tenant, limits=limits)
    return {"Authorization": f"Bearer {made.key}"}


def submit(api: FarmApi, headers: dict[str, str], **fields: object):
    return api.http.post("/api/v1/jobs", json={"prompt": "a cup", **fields}, headers=headers)


def test_a_rotated_key_holds_for_its_grace_and_no_longer(keyed: FarmApi) -> None:
    store = keyed.app_context.store
    old = create_key(store, name="shop", tenant="rotation", scopes=[Scope.READ], limits={"queued": 5})
    admin = keyed.key("operators", Scope.FARM)
    response = keyed.http.post(f"/api/v1/keys/{old.info.prefix}/rotate", json={"grace_s": 60}, headers=admin)
    new = response.get_json()
    assert response.status_code == 201
    assert (new["name"], new["tenant"], new["scopes"], new["limits"]) == ("shop", "rotation", ["read"], {"queued": 5})
    assert authenticate_key(store, old.key) is not None
    fresh = authenticate_key(store, new["key"])
    assert fresh is not None
    assert fresh.quota_id == old.info.id, "what the old one used of its limits counts on"
    with store.write() as session:
        session.execute(update(ApiKey).where(ApiKey.id == old.info.id).values(expires_at=db_now() - 1))
    assert authenticate_key(store, old.key) is None
    problem(keyed.http.post(f"/api/v1/keys/{old.info.prefix}/rotate", json={}, headers=admin), 409)
    assert new["key"] not in keyed.http.get("/api/v1/keys", headers=admin).text


def test_grace_never_makes_a_key_live_longer(keyed: FarmApi) -> None:
    store = keyed.app_context.store
    made = create_key(store, name="x", tenant="rotation")
    rotate_key(store, made.info.id, grace_s=10)
    first = next(info.expires_at for info in list_keys(store) if info.id == made.info.id)
    rotate_key(store, made.info.id, grace_s=1000)
    assert next(info.expires_at for info in list_keys(store) if info.id == made.info.id) == first
    revoke_key(store, made.info.id)
    with pytest.raises(Conflict):
        rotate_key(store, made.info.id)
    with pytest.raises(InvalidRequest, match="grace_s"):
        rotate_key(store, made.info.id, grace_s=-1)


def test_a_key_with_a_full_queue_is_told_so_and_another_is_not(keyed: FarmApi) -> None:
    headers, other = limited(keyed, "crowd", queued=2), keyed.key("crowd")
    for _ in range(2):
        assert submit(keyed, headers).status_code == 202
    refusal = submit(keyed, headers)
    body = problem(refusal, 429)
    assert (body["limit"], body["value"]) == ("key.queued", 2)
    assert int(refusal.headers["Retry-After"]) >= 1
    assert submit(keyed, other).status_code == 202
    rows = [{"prompt": "x"}] * 3
    table = problem(keyed.http.post("/api/v1/batches", json={"rows": rows}, headers=headers), 429)
    assert (table["limit"], "(key.queued = 2)" in table["detail"]) == ("key.queued", True)


def test_a_key_s_day_is_counted_on_after_rotation(keyed: FarmApi) -> None:
    headers = limited(keyed, "daily", images_per_day=3)
    assert submit(keyed, headers, count=2).status_code == 202
    info = list_keys(keyed.app_context.store)[0]
    new = {"Authorization": f"Bearer {rotate_key(keyed.app_context.store, info.id).key}"}
    refusal = submit(keyed, new, count=2)
    body = problem(refusal, 429)
    assert (body["limit"], body["value"]) == ("key.images_per_day", 3)
    assert "2 were asked for today" in body["detail"]
    assert 0 < body["retry_after"] <= 86400
    assert submit(keyed, new, count=1).status_code == 202


def limited_tenant(api: FarmApi, name: str, **limits: int) -> dict[str, str]:
    headers = api.key(name)
    with api.app_context.store.write() as session:
        session.execute(update(Tenant).where(Tenant.name == name).values(limits=limits))
    return headers


def test_a_tenant_s_day_counts_single_jobs_and_tables(keyed: FarmApi) -> None:
    headers = limited_tenant(keyed, "a-day", images_per_day=5)
    assert submit(keyed, headers, count=2).status_code == 202
    rows = {"rows": [{"prompt": "x"}, {"prompt": "y"}, {"prompt": "z"}, {"prompt": "v"}]}
    refusal = keyed.http.post("/api/v1/batches", json=rows, headers=headers)
    assert problem(refusal, 429)["limit"] == "images_per_day"
    assert int(refusal.headers["Retry-After"]) > 0
    assert keyed.http.get("/api/v1/batches", headers=headers).get_json()["items"] == [], "refused before anything is stored"
    assert keyed.http.post("/api/v1/batches", json={"rows": rows["rows"][:2]}, headers=headers).status_code == 202
    body = problem(submit(keyed, headers, count=2), 429)
    assert (body["limit"], body["value"]) == ("images_per_day", 5)
    assert "4 were asked for today, and 2 more do not fit" in body["detail"]


def test_a_retry_needs_room_in_the_queue(keyed: FarmApi) -> None:
    headers = limited_tenant(keyed, "narrow", queued=1)
    first = submit(keyed, headers).get_json()["id"]
    keyed.http.post(f"/api/v1/jobs/{first}/cancel", headers=headers)
    second = submit(keyed, headers).get_json()["id"]
    refusal = keyed.http.post(f"/api/v1/jobs/{first}/retry", headers=headers)
    assert problem(refusal, 429)["limit"] == "queued"
    assert int(refusal.headers["Retry-After"]) >= 1
    keyed.http.post(f"/api/v1/jobs/{second}/cancel", headers=headers)
    assert keyed.http.post(f"/api/v1/jobs/{first}/retry", headers=headers).status_code == 202


def test_a_tenant_s_sizes_hold_for_tables(keyed: FarmApi) -> None:
    headers = limited_tenant(keyed, "little", pixels=64 * 64, steps=4)
    for row, field in (({"width": 128, "steps": 4}, "width"), ({"steps": 5}, "steps")):
        body = {"rows": [{"prompt": "x", "height": 64, **{"width": 64}, **row}]}
        errors = problem(keyed.http.post("/api/v1/batches", json=body, headers=headers), 422)["errors"]
        assert (errors[0]["field"], errors[0]["row"]) == (field, 1)
        fits = {"prompt": "x", "height": 64, "width": 64, "steps": 4}
        some = {"rows": [fits, *body["rows"]], "on_error": "skip"}
        answer = keyed.http.post("/api/v1/batches", json=some, headers=headers)
        counts = answer.get_json()["counts"]
        assert (counts["accepted"], counts["rejected"]) == (1, 1), "only the row that is too large"


def test_a_key_s_sizes(keyed: FarmApi) -> None:
    headers = limited(keyed, "small", pixels=64 * 64, steps=4)
    assert problem(submit(keyed, headers, width=128, height=64, steps=4), 422)["errors"][0]["field"] == "width"
    assert problem(submit(keyed, headers, width=64, height=64, steps=5), 422)["errors"][0]["field"] == "steps"
    assert submit(keyed, headers, width=64, height=64, steps=4).status_code == 202
    assert submit(keyed, keyed.key("small"), width=64, height=64, steps=5).status_code == 202, "the limits were another request's"


def test_no_more_of_a_key_s_jobs_run_than_its_cap(keyed: FarmApi) -> None:
    headers = limited(keyed, "capped", running=1)
    # more than a claim looks at: it must look past them
    capped = {submit(keyed, headers).get_json()["id"] for _ in range(LOOK_AHEAD + 3)}
    free = submit(keyed, keyed.key("capped")).get_json()["id"]
    held = []
    while claimed := keyed.inside.claim("worker_1", images=8):
        held += claimed
    mine = [job for job in held if job.id in capped]
    assert len(mine) == 1
    assert free in {job.id for job in held}, "a key at its cap must not hold up its tenant's others"
    keyed.inside.finish(mine[0])
    again = [job for job in keyed.inside.claim("worker_1", images=8) if job.id in capped]
    assert len(again) == 1
    for job in held:
        if job.id != mine[0].id:
            keyed.inside.finish(job)


@pytest.mark.parametrize(
    ("limits", "field"),
    [({"queued": -1}, "limits.queued"), ({"queued": True}, "limits.queued"), ({"queued": 1.5}, "limits.queued"),
     ({"speed": 1}, "limits.speed"), ({"steps": "9" * 30}, "limits.steps"), ([], "limits"), ("queued=1", "limits")],
)  # fmt: skip
def test_limits_that_are_none(keyed: FarmApi, limits: object, field: str) -> None:
    admin = keyed.key("operators", Scope.FARM)
    body = problem(keyed.http.post("/api/v1/keys", json={"name": "x", "limits": limits}, headers=admin), 422)
    assert body["errors"][0]["field"] == field
