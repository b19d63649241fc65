"""Limits of the farm and of a tenant: each refusal names the limit, its value, and when to come back."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from imagefarm.errors import InvalidRequest, LimitExceeded
from imagefarm.store.models import Tenant
from scheduler.limits import DAY_S
from tests.small_farm import SmallFarm


def limit(farm: SmallFarm, **limits: int) -> str:
    tenant = farm.tenant("shop")
    with farm.store.write() as session:
        session.execute(update(Tenant).where(Tenant.id == tenant).values(limits=limits))
    return tenant


def test_a_full_queue(farm: SmallFarm) -> None:
    shop = limit(farm, queued=3)
    farm.submit(2, tenant=shop)
    with pytest.raises(LimitExceeded, match="2 of 3 jobs wait, and 2 more") as caught:
        farm.submit(2, tenant=shop)
    assert (caught.value.limit, caught.value.status) == ("queued", 429)
    assert caught.value.retry_after >= 1
    assert farm.states() == {"queued": 2}
    farm.submit(5)  # another tenant is not held up


def test_the_farms_queue(farm: SmallFarm) -> None:
    farm.settings = farm.settings.model_copy(update={"max_queued": 2})
    farm.submit(2)
    with pytest.raises(LimitExceeded) as caught:
        farm.submit(1)
    assert (caught.value.limit, caught.value.status) == ("max_queued", 503)


def test_pictures_a_day(farm: SmallFarm) -> None:
    shop = limit(farm, images_per_day=5)
    farm.submit(2, tenant=shop, count=2)
    with pytest.raises(LimitExceeded, match="5 pictures a day") as caught:
        farm.submit(1, tenant=shop, count=2)
    assert 0 < caught.value.retry_after <= DAY_S
    farm.submit(1, tenant=shop, count=1)


@pytest.mark.parametrize(("limits", "field"), [({"pixels": 1000}, "width"), ({"steps": 4}, "steps")])
def test_a_job_too_large_for_its_tenant(farm: SmallFarm, limits: dict[str, int], field: str) -> None:
    shop = limit(farm, **limits)
    with pytest.raises(InvalidRequest) as caught:
        farm.submit(1, tenant=shop)
    assert caught.value.errors[0].field == field


def test_running_jobs_of_a_tenant(farm: SmallFarm) -> None:
    shop = limit(farm, running=1)
    farm.submit(3, tenant=shop)
    assert len(farm.claim("wrk_a", images=1)) == 1
    assert farm.claim("wrk_b") == []
