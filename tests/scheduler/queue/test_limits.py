"""Limits of the farm and of a tenant: each refusal names the limit, its value, and when to come back."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from imagefarm.auth import KeyQuota
from imagefarm.errors import InvalidRequest, LimitExceeded
from imagefarm.states import WorkerState
from imagefarm.store.models import Tenant, Usage
from imagefarm.tenants import DAY_S
from scheduler.queue.workers import mark_offline, report_model, set_desired_state
from tests.small_farm import SmallFarm


def limit(farm: SmallFarm, name: str = "shop", **limits: int) -> str:
    tenant = farm.tenant(name)
    with farm.store.write() as session:
        session.execute(update(Tenant).where(Tenant.id == tenant).values(limits=limits))
    return tenant


def test_a_full_queue(farm: SmallFarm) -> None:
    shop = limit(farm, queued=3)
    wide = limit(farm, name="wide", queued=10)
    farm.settings = farm.settings.model_copy(update={"max_queued_per_tenant": 4})
    with pytest.raises(
        LimitExceeded, match=r"0 of 4 jobs wait, and 5 more do not fit \(max_queued_per_tenant = 4\); send fewer at a time"
    ):
        farm.submit(5, tenant=wide)  # no tenant's own limit is wider than the farm's
    farm.submit(2, tenant=shop)
    with pytest.raises(LimitExceeded, match=r"2 of 3 jobs wait, and 2 more do not fit \(queued = 3\)$") as caught:
        farm.submit(2, tenant=shop)
    assert (caught.value.limit, caught.value.status) == ("queued", 429)
    assert caught.value.retry_after >= 1
    assert farm.states() == {"queued": 2}
    farm.submit(4)  # another tenant is not held up


def test_yesterdays_pictures_do_not_count(farm: SmallFarm) -> None:
    shop = limit(farm, images_per_day=5)
    farm.submit(5, tenant=shop)
    with farm.store.write() as session:
        session.execute(update(Usage).values(day=Usage.day - 1))
    farm.submit(5, tenant=shop)


@pytest.mark.parametrize(("cost_s", "told_s"), [(0.001, 1.0), (86400.0, 3600.0)])
def test_nobody_is_told_to_come_back_at_once_or_tomorrow(farm: SmallFarm, cost_s: float, told_s: float) -> None:
    report_model(farm.store, "demo", "ready", cost_s=cost_s)
    shop = limit(farm, queued=1)
    farm.submit(1, tenant=shop)
    with pytest.raises(LimitExceeded) as caught:
        farm.submit(1, tenant=shop)
    assert caught.value.retry_after == told_s


def test_the_farms_queue(farm: SmallFarm) -> None:
    farm.settings = farm.settings.model_copy(update={"max_queued": 2})
    farm.submit(2)
    with pytest.raises(LimitExceeded, match=r"2 of 2 jobs wait, and 1 more do not fit \(max_queued = 2\)$") as caught:
        farm.submit(1)
    assert (caught.value.limit, caught.value.status) == ("max_queued", 503)


def test_pictures_a_day(farm: SmallFarm) -> None:
    shop = limit(farm, images_per_day=5)
    farm.submit(2, tenant=shop, count=2)
    with pytest.raises(LimitExceeded, match="5 pictures a day") as caught:
        farm.submit(1, tenant=shop, count=2)
    assert caught.value.retry_after == pytest.approx(DAY_S - farm.store.now() % DAY_S, abs=60), "until midnight, UTC"
    farm.submit(1, tenant=shop, count=1)


@pytest.mark.parametrize(("limits", "field"), [({"pixels": 1000}, "width"), ({"steps": 4}, "steps")])
def test_a_job_too_large_for_its_tenant(farm: SmallFarm, limits: dict[str, int], field: str) -> None:
    shop = limit(farm, **limits)
    with pytest.raises(InvalidRequest) as caught:
        farm.submit(1, tenant=shop)
    assert caught.value.errors[0].field == field


@pytest.mark.parametrize(("tenant", "key"), [(4, 9), (9, 4)])
def test_a_key_may_be_narrower_than_its_tenant_and_never_wider(farm: SmallFarm, tenant: int, key: int) -> None:
    shop = limit(farm, steps=tenant)
    quota = KeyQuota("key_shop", {"steps": key})
    with pytest.raises(InvalidRequest, match="more than the 4 steps"):
        farm.submit(1, tenant=shop, quota=quota, steps=5)
    farm.submit(1, tenant=shop, quota=quota, steps=4)


def test_running_jobs_of_a_tenant(farm: SmallFarm) -> None:
    shop = limit(farm, running=1)
    farm.submit(3, tenant=shop)
    assert len(farm.claim("wrk_a", quantum_s=100.0)) == 1, "also of those that would go together"
    assert farm.claim("wrk_b") == []


def test_the_expected_wait_is_what_waits_over_those_who_take_work(farm: SmallFarm) -> None:
    shop = limit(farm, queued=40)
    report_model(farm.store, "demo", "ready", cost_s=30.0)
    farm.submit(40, tenant=shop)

    def told() -> float:
        with pytest.raises(LimitExceeded) as caught:
            farm.submit(1, tenant=shop)
        return caught.value.retry_after

    assert told() == pytest.approx(1200.0)
    for name in ("wrk_a", "wrk_b", "wrk_gone", "wrk_drained"):
        farm.worker(name)
    mark_offline(farm.store, "wrk_gone", farm.settings, "stopped", clean=True)
    set_desired_state(farm.store, "wrk_drained", WorkerState.DRAINING, by="test")
    assert told() == pytest.approx(600.0)
    farm.settings = farm.settings.model_copy(update={"max_queued": 40})
    with pytest.raises(LimitExceeded) as caught:
        farm.submit(1)
    assert (caught.value.limit, caught.value.retry_after) == ("max_queued", pytest.approx(600.0))
