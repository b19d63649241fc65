"""The catalogue of bad requests around jobs: picks, finals, deliveries, bulk changes, webhooks, keys, users, assets, models.

Each is a problem that names the field and how to mend it; nothing is stored and nothing breaks.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import func, select

from imagefarm.store.models import Base
from tests.api.farm_api import FarmApi, problem

IMAGE = "img_01JD0000000000000000000000"
BATCH = "batch_01JD0000000000000000000000"
JOB = "job_01JD0000000000000000000000"
HOOK = "hook_01JD0000000000000000000000"
PASSWORD = "correct horse battery"
SIZE = {"width": 128, "height": 128}
USER = {"name": "ada", "password": PASSWORD}
HOOKED = {"url": "https://example.com/hook", "kinds": ["job.failed"]}

BODIES: list[tuple[str, Any, str]] = [
    # the path after /api/v1/, the body, the field that the answer names
    ("batches/{batch}/picks", {}, "picks"),
    ("batches/{batch}/picks", {"picks": []}, "picks"),
    ("batches/{batch}/picks", {"picks": "all"}, "picks"),
    ("batches/{batch}/picks", {"picks": [{}]}, "picks.0.image_id"),
    ("batches/{batch}/picks", {"picks": [{"image_id": IMAGE}]}, "picks.0.pick"),
    ("batches/{batch}/picks", {"picks": [{"image_id": IMAGE, "pick": "maybe"}]}, "picks.0.pick"),
    ("batches/{batch}/picks", {"picks": [{"image_id": 7, "pick": "approve"}]}, "picks.0.image_id"),
    ("batches/{batch}/picks", {"picks": [{"image_id": "a\0b", "pick": "approve"}]}, "picks.0.image_id"),
    ("batches/{batch}/picks", {"picks": [{"image_id": "x" * 41, "pick": "approve"}]}, "picks.0.image_id"),
    ("batches/{batch}/picks", {"picks": [{"image_id": IMAGE, "pick": "approve"}]}, "picks.0.image_id"),
    ("batches/{batch}/picks", {"picks": [{"image_id": IMAGE, "pick": "approve", "why": "nice"}]}, "picks.0.why"),
    ("batches/{batch}/finals", {}, "width"),
    ("batches/{batch}/finals", {"width": 128}, "height"),
    ("batches/{batch}/finals", SIZE | {"width": True}, "width"),
    ("batches/{batch}/finals", SIZE | {"width": 10**9}, "width"),
    ("batches/{batch}/finals", SIZE | {"height": "tall"}, "height"),
    ("batches/{batch}/finals", SIZE | {"steps": 0}, "steps"),
    ("batches/{batch}/finals", SIZE | {"steps": 1.5}, "steps"),
    ("batches/{batch}/finals", SIZE | {"name": ""}, "name"),
    ("batches/{batch}/finals", SIZE | {"name": "a\0"}, "name"),
    ("batches/{batch}/finals", SIZE | {"upscale": {"scale": 9}}, "upscale.scale"),
    ("batches/{batch}/finals", SIZE | {"channels": ["nowhere"]}, "channels"),
    ("batches/{batch}/finals", SIZE | {"channels": [{"name": "../up"}]}, "channels"),
    ("batches/{batch}/finals", SIZE | {"deliver": {"bucket": "b"}}, "deliver.prefix"),
    ("batches/{batch}/finals", SIZE | {"seed": 5}, "seed"),
    ("batches/{batch}/deliver", {}, "bucket"),
    ("batches/{batch}/deliver", {"bucket": "shop"}, "prefix"),
    ("batches/{batch}/deliver", {"bucket": "s3://shop", "prefix": "a"}, "bucket"),
    ("batches/{batch}/deliver", {"bucket": "shop", "prefix": "../a"}, "prefix"),
    ("batches/{batch}/deliver", {"bucket": "shop", "prefix": "/a"}, "prefix"),
    ("batches/{batch}/deliver", {"bucket": "shop", "prefix": "a/../../b"}, "prefix"),
    ("batches/{batch}/deliver", {"bucket": "not-allowed", "prefix": "a"}, "bucket"),
    ("jobs/cancel", {"expected": -1}, "expected"),
    ("jobs/cancel", {"expected": "all"}, "expected"),
    ("jobs/cancel", {"expected": True}, "expected"),
    ("jobs/cancel", {"expected": 10**15}, "expected"),
    ("jobs/cancel", {"state": "queued"}, "state"),
    ("jobs/cancel", {"state": ["done"]}, "state.0"),
    ("jobs/cancel", {"label": ["sku"]}, "label.0"),
    ("jobs/cancel", {"created_after": "yesterday"}, "created_after"),
    ("jobs/cancel", {"text": ""}, "text"),
    ("jobs/cancel", {"ids": [JOB]}, "ids"),
    ("jobs/retry", {"expected": 1.5}, "expected"),
    ("jobs/retry", {"model": "x" * 65}, "model"),
    ("jobs/retry", [], "body"),
    ("webhooks", {}, "url"),
    ("webhooks", HOOKED | {"url": "ftp://example.com/x"}, "url"),
    ("webhooks", HOOKED | {"url": "https://user:pw@example.com/x"}, "url"),
    ("webhooks", HOOKED | {"url": "http://2130706433/x"}, "url"),
    ("webhooks", HOOKED | {"url": "http://[::ffff:10.0.0.1]/x"}, "url"),
    ("webhooks", HOOKED | {"url": "https://example.com/" + "x" * 9000}, "url"),
    ("webhooks", HOOKED | {"kinds": []}, "kinds"),
    ("webhooks", HOOKED | {"kinds": ["job.exploded"]}, "kinds.0"),
    ("webhooks", HOOKED | {"kinds": "job.failed"}, "kinds"),
    ("webhooks", HOOKED | {"subject": "a\0"}, "subject"),
    ("webhooks", HOOKED | {"secret": "mine"}, "secret"),
    ("keys", {"name": "a", "limits": {"queued": -1}}, "limits.queued"),
    ("keys", {"name": "a", "limits": {"queued": True}}, "limits.queued"),
    ("keys", {"name": "a", "limits": {"running": 2**60}}, "limits.running"),
    ("keys", {"name": "a", "limits": {"gold": 1}}, "limits.gold"),
    ("keys", {"name": "a", "limits": [1]}, "limits"),
    ("keys/nobody/rotate", {"grace_s": -1}, "grace_s"),
    ("keys/nobody/rotate", {"grace_s": 10**9}, "grace_s"),
    ("keys/nobody/rotate", {"grace_s": True}, "grace_s"),
    ("keys/nobody/rotate", {"grace_s": "a day"}, "grace_s"),
    ("users", {}, "name"),
    ("users", USER | {"name": "../ada"}, "name"),
    ("users", USER | {"name": "ada lovelace"}, "name"),
    ("users", USER | {"name": "x" * 65}, "name"),
    ("users", USER | {"password": "short"}, "password"),
    ("users", USER | {"password": "x" * 201}, "password"),
    ("users", USER | {"password": "with a \0 in it"}, "password"),
    ("users", USER | {"password": 1234567890}, "password"),
    ("users", USER | {"role": "root"}, "role"),
    ("users", USER | {"tenant": " a"}, "tenant"),
    ("users", USER | {"scopes": ["admin"]}, "scopes"),
    ("users/nobody/password", {}, "password"),
    ("users/nobody/password", {"password": "short"}, "password"),
    ("prompts/enhance", {"prompt": ""}, "prompt"),
    ("prompts/enhance", {"prompt": "a mug", "kind": "nothing-such"}, "kind"),
    ("prompts/enhance", {"prompt": "a mug", "variant": -1}, "variant"),
    ("prompts/enhance", {"prompt": "a mug", "variant": False}, "variant"),
    ("jobs", {"prompt": "a", "subject": {}}, "subject.image"),
    ("jobs", {"prompt": "a", "subject": {"image": "../x"}}, "subject.image"),
    ("jobs", {"prompt": "a", "subject": {"image": IMAGE}}, "subject.image"),
    ("jobs", {"prompt": "a", "init_image": "http://2130706433/a.png"}, "init_image"),
    ("jobs", {"prompt": "a", "init_image": "http://[::1]/a.png"}, "init_image"),
    ("jobs", {"prompt": "a", "init_image": "file:///etc/passwd"}, "init_image"),
]
ADDRESSES = [
    # method, path after /api/v1/, status, a word of the answer
    ("POST", f"batches/{BATCH}/pause", 404, "no batch"),
    ("POST", f"batches/{BATCH}/approve", 404, "no batch"),
    ("POST", f"batches/{BATCH}/retry-failed", 404, "no batch"),
    ("POST", "batches/%00/cancel", 404, "nothing is at"),
    ("POST", "batches/{batch}/approve", 409, "canary"),
    ("GET", f"batches/{BATCH}/images", 404, "no batch"),
    ("GET", "batches/{batch}/images?pick=loved", 422, "pick"),
    ("GET", "batches/{batch}/images?verdict=fine", 422, "verdict"),
    ("GET", "batches/{batch}/images?limit=501", 422, "at most 500"),
    ("GET", "batches/{batch}/images?cursor=%00", 422, "cursor"),
    ("GET", f"batches/{BATCH}/archive.zip", 404, "no batch"),
    ("GET", f"jobs/{JOB}/replay", 404, "no job"),
    ("POST", f"jobs/{JOB}/replay", 404, "no job"),
    ("GET", f"jobs/{JOB}/preview?index=-1", 422, "index"),
    ("DELETE", f"webhooks/{HOOK}", 404, "no webhook"),
    ("GET", f"webhooks/{HOOK}/deliveries", 404, "no webhook"),
    ("POST", f"webhooks/{HOOK}/deliveries/msg_01JD0000000000000000000000/replay", 404, "no"),
    ("POST", "models/nope/warm", 422, "use one of"),
    ("POST", "models/%00/unload", 404, "such a name"),
    ("POST", "models/nope/unload", 422, "use one of"),
    ("POST", "users/nobody/disable", 404, "nobody"),
    ("POST", "users/%00/disable", 404, "such a name"),
    ("POST", "assets", 415, "image/png"),
    ("GET", "assets?limit=0", 422, "limit"),
    ("GET", f"images/{IMAGE}/file?channel=square", 404, "no image"),
    ("GET", "statistics?hours=0", 422, "known are period"),
]


def address(api: FarmApi, path: str) -> str:
    """The whole path; `{batch}` is a batch that is there."""
    if "{batch}" not in path:
        return f"/api/v1/{path}"
    made = api.http.post("/api/v1/batches", data="prompt\na mug\n", content_type="text/csv")
    assert made.status_code in {200, 201, 202}, made.text
    return "/api/v1/" + path.replace("{batch}", made.get_json()["id"])


@pytest.mark.parametrize(("path", "body", "field"), BODIES, ids=[f"{n}-{p}-{f}" for n, (p, _, f) in enumerate(BODIES)])
def test_the_field_is_named(api: FarmApi, path: str, body: Any, field: str) -> None:
    url = address(api, path)
    stored = everything_stored(api)
    response = api.http.post(url, json=body)
    answer = problem(response, 400 if "\\u0000" in json.dumps(body) else 422)
    assert any(error["field"].startswith(field) for error in answer["errors"]), answer["errors"]
    assert all(error["detail"] and error["remedy"] for error in answer["errors"]), answer["errors"]
    assert PASSWORD not in json.dumps(answer)
    assert everything_stored(api) == stored


@pytest.mark.parametrize(("method", "path", "status", "word"), ADDRESSES, ids=[f"{m} {p[:60]}" for m, p, *_ in ADDRESSES])
def test_the_address_is_explained(api: FarmApi, method: str, path: str, status: int, word: str) -> None:
    url = address(api, path)
    stored = everything_stored(api)
    answer = problem(api.http.open(url, method=method), status)
    assert word in json.dumps(answer, ensure_ascii=False)
    assert everything_stored(api) == stored


def everything_stored(api: FarmApi) -> dict[str, int | None]:
    """How many rows each table holds."""
    with api.farm.store.read() as session:
        return {name: session.scalar(select(func.count()).select_from(table)) for name, table in Base.metadata.tables.items()}
