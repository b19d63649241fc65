"""Objects that the bad requests of several tests name."""

from __future__ import annotations

from typing import Any

import pytest

from imagefarm.settings import BucketSettings
from tests.api.farm_api import FarmApi
from tests.api.v1.bad_requests import (
    hook,
    picks,
    png,
    user,
)


@pytest.fixture(scope="module")
def things(api: FarmApi) -> dict[str, str]:
    """Ids of the objects that bad requests name: batches in several states, images, a key, a user, assets."""

    def batch(rows: int = 1) -> str:
        body = {"rows": [{"prompt": f"a mug {number}"} for number in range(rows)]}
        return api.http.post("/api/v1/batches", json=body).get_json()["id"]

    def post(path: str, **sent: Any) -> dict[str, Any]:
        response = api.http.post(path, **sent)
        assert response.status_code < 300, response.text
        return response.get_json()

    done, other = batch(), batch()
    jobs = [api.get(f"/api/v1/jobs?batch={each}")["items"][0]["id"] for each in (done, other)]
    [image], [other_image] = [api.render(api.claim(job)) for job in jobs]
    post(f"/api/v1/batches/{done}/picks", json=picks({"image_id": image, "pick": "approve"}))
    cancelled, paused = batch(), batch()
    post(f"/api/v1/batches/{cancelled}/cancel")
    post(f"/api/v1/batches/{paused}/pause")
    asset, small = (post("/api/v1/assets", data=png(size, size), content_type="image/png")["items"][0]["id"] for size in (64, 8))
    post("/api/v1/users", json=user(name="taken"))
    revoked = post("/api/v1/keys", json={"name": "old"})["id"]
    api.http.delete(f"/api/v1/keys/{revoked}")
    place = BucketSettings(url="s3://nowhere")
    api.app_context.settings.buckets = {"shop": place, "private": place.model_copy(update={"tenants": ["somebody"]})}
    return {
        "batch": done, "image": image, "other image": other_image, "cancelled": cancelled, "paused": paused, "job": jobs[0],
        "asset": asset, "small": small, "revoked": revoked, "key": post("/api/v1/keys", json={"name": "new"})["id"],
        "hook": post("/api/v1/webhooks", json=hook(url="https://93.184.216.34/"))["id"], "waiting": api.submit("waits")["id"],
    }  # fmt: skip
