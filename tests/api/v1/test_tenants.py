"""Limits of a tenant, set by admins: they hold at once, null removes one, each change is one event, a bad one changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from imagefarm.auth import Scope
from imagefarm.errors import InvalidRequest
from imagefarm.store.models import Event, Tenant
from imagefarm.tenants import limit_tenant, tenants_in_use
from tests.api.farm_api import FarmApi, problem


def change(api: FarmApi, tenant: str, **limits: object) -> Any:
    admin = api.key("operators", Scope.FARM)
    return api.http.patch(f"/api/v1/tenants/{tenant}", json={"limits": limits}, headers=admin)


def changes(api: FarmApi, name: str) -> list[dict[str, Any]]:
    """What the audit has of changes of a tenant, oldest first."""
    with api.app_context.store.read() as session:
        tenant_id = session.scalar(select(Tenant.id).where(Tenant.name == name))
        those = select(Event).where(Event.kind == "tenant.limited", Event.subject == tenant_id, Event.tenant_id == tenant_id)
        return [event.data for event in session.scalars(those.order_by(Event.id))]


def submit(api: FarmApi, headers: dict[str, str], **fields: object) -> Any:
    return api.http.post("/api/v1/jobs", json={"prompt": "a cup", **fields}, headers=headers)


def test_a_limit_holds_from_the_next_submit_until_it_is_removed(keyed: FarmApi) -> None:
    shop = keyed.key("crowded")
    assert submit(keyed, shop).status_code == 202
    told = change(keyed, "crowded", queued=1, steps=4).get_json()
    assert (told["name"], told["limits"], told["queued"], told["max_queued"]) == ("crowded", {"queued": 1, "steps": 4}, 1, 1)
    body = problem(submit(keyed, shop, steps=4), 429)
    assert (body["limit"], body["value"]) == ("queued", 1)
    assert body["detail"] == "your queue is full: 1 of 1 jobs wait, and 1 more do not fit (queued = 1)"
    assert problem(submit(keyed, shop, steps=5), 422)["errors"][0]["field"] == "steps"
    assert change(keyed, "crowded", queued=None).get_json()["limits"] == {"steps": 4}, "limits that were not named stay"
    assert submit(keyed, shop, steps=4).status_code == 202
    assert keyed.get("/api/v1/limits", headers=shop)["tenant"]["steps"] == 4
    [listed] = [
        one for one in keyed.get("/api/v1/tenants", headers=keyed.key("x", Scope.FARM))["items"] if one["id"] == told["id"]
    ]
    assert (listed["limits"], listed["queued"]) == ({"steps": 4}, 2)
    assert change(keyed, told["id"], steps=None).get_json()["limits"] == {}, "by id too"


def test_a_limit_wider_than_the_farms_has_no_effect(keyed: FarmApi) -> None:
    keyed.key("wide")
    most = keyed.app_context.settings.max_queued_per_tenant
    told = change(keyed, "wide", queued=most + 1).get_json()
    assert (told["limits"]["queued"], told["max_queued"]) == (most + 1, most)


def test_running_is_held_from_the_next_claim(keyed: FarmApi) -> None:
    shop = keyed.key("runner")
    for _ in range(2):
        submit(keyed, shop)
    change(keyed, "runner", running=0)
    assert not [job for job in keyed.inside.claim("worker_1", images=8) if job.tenant_id == told_id(keyed, "runner")]
    change(keyed, "runner", running=None)
    claimed = []
    while jobs := keyed.inside.claim("worker_1", images=8):
        claimed += jobs
    assert len([job for job in claimed if job.tenant_id == told_id(keyed, "runner")]) == 2
    for job in claimed:
        keyed.inside.finish(job)


def told_id(api: FarmApi, name: str) -> str:
    with api.app_context.store.read() as session:
        return session.scalars(select(Tenant.id).where(Tenant.name == name)).one()


def test_each_change_is_one_event_and_none_is_none(keyed: FarmApi) -> None:
    keyed.key("watched")
    change(keyed, "watched", queued=5, pixels=4096)
    change(keyed, "watched", queued=5)
    change(keyed, "watched", queued=6, pixels=None)
    change(keyed, "watched")
    first, second = changes(keyed, "watched")
    assert (first["before"], first["after"]) == ({}, {"queued": 5, "pixels": 4096})
    assert (second["before"], second["after"]) == ({"queued": 5, "pixels": 4096}, {"queued": 6})
    assert first["by"].startswith("key_")


@pytest.mark.parametrize(
    ("limits", "field"),
    [({"queued": -1}, "limits.queued"), ({"speed": 1}, "limits.speed"), ({"steps": 2**53}, "limits.steps"),
     ({"steps": 1.5}, "limits.steps"), ({"steps": True}, "limits.steps"), ({"steps": 4, "speed": None}, "limits.speed")],
)  # fmt: skip
def test_limits_that_are_none_change_nothing(keyed: FarmApi, limits: dict[str, Any], field: str) -> None:
    keyed.key("steady")
    error = problem(change(keyed, "steady", **limits), 422)["errors"][0]
    assert error["field"] == field
    assert error["remedy"]
    with pytest.raises(InvalidRequest) as caught:  # as the command line asks
        limit_tenant(keyed.app_context.store, "steady", limits)
    assert (caught.value.errors[0].field, caught.value.errors[0].remedy != "") == (field, True)
    assert changes(keyed, "steady") == []
    with keyed.app_context.store.read() as session:
        [info] = tenants_in_use(session, only=told_id(keyed, "steady"))
    assert info.limits == {}


def test_only_an_admin_of_the_farm_may(keyed: FarmApi) -> None:
    own = keyed.key("ambitious", Scope.SUBMIT, Scope.READ)
    problem(keyed.http.patch("/api/v1/tenants/ambitious", json={"limits": {"queued": 9}}, headers=own), 403)
    problem(change(keyed, "nobody-yet", queued=1), 404)
    assert changes(keyed, "ambitious") == []


def test_shares_are_of_all_who_asked(keyed: FarmApi) -> None:
    submit(keyed, keyed.key("asks"))
    admin = keyed.key("operators", Scope.FARM)
    listed = keyed.get("/api/v1/tenants", headers=admin)["items"]
    assert sum(one["share"] for one in listed) == pytest.approx(1, abs=0.01)
    [mine] = [one for one in listed if one["name"] == "asks"]
    told = change(keyed, "asks", queued=99).get_json()
    assert (told["share"], told["fair_share"]) == (mine["share"], mine["fair_share"])
    assert mine["share"] < 1
