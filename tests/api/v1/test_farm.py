"""The farm as the API shows it: queue, models, workers, health, headers."""

from __future__ import annotations

from typing import Any

import pytest

from imagefarm.auth import Scope
from imagefarm.states import WorkerState
from scheduler.queue import workers
from scheduler.queue.workers import report_model
from tests.api.farm_api import FarmApi, problem


def test_the_queue_counts_lanes_and_flows(api: FarmApi) -> None:
    mine = api.key("queuer", Scope.SUBMIT, Scope.READ)
    for number in range(3):
        api.submit(f"q{number}", headers=mine, priority="bulk" if number else "interactive")
    queue = api.get("/api/v1/queue", headers=mine)
    [lane] = queue["lanes"]
    assert (lane["model"], lane["queued"], lane["running"], lane["workers"]) == ("demo", 3, 0, 1)
    assert lane["oldest_s"] >= 0
    flows = [(flow["priority"], flow["queued"], flow["tenant"]) for flow in queue["flows"]]
    assert flows == [("bulk", 2, "queuer"), ("interactive", 1, "queuer")]
    assert queue["caps"]["max_queued"] == api.app_context.settings.max_queued
    api.submit("another tenant's")
    assert api.get("/api/v1/queue", headers=mine)["queued"] == 3
    everything = api.get("/api/v1/queue")
    assert everything["queued"] >= 4
    claimed = api.inside.claim("worker_1", images=1)
    after = api.get("/api/v1/queue")
    assert (after["running"], after["queued"]) == (1, everything["queued"] - 1)
    api.render(claimed[0])


def test_models_show_what_workers_learnt(api: FarmApi) -> None:
    models = {model["name"]: model for model in api.get("/api/v1/models")["items"]}
    assert set(models) == set(api.app_context.catalogue.names())
    assert (models["demo"]["default"], models["demo"]["state"], models["demo"]["workers"]) == (True, "unknown", 1)
    report_model(api.app_context.store, "sdxl", "missing", reason="no folder")
    report_model(api.app_context.store, "demo", "ready", digest="d" * 64, load_s=1.5, cost_s=0.11)
    demo = api.get("/api/v1/models/demo")
    assert (demo["state"], demo["digest"], demo["load_s"], demo["cost_s"]) == ("ready", "d" * 64, 1.5, 0.11)
    sdxl = api.get("/api/v1/models/sd_xl_base_1.0.safetensors")  # an alias
    assert (sdxl["name"], sdxl["state"], sdxl["reason"]) == ("sdxl", "missing", "no folder")
    assert sdxl["limits"]["multiple"] == 8


def test_a_worker_is_drained_resumed_and_quarantined(api: FarmApi) -> None:
    api.inside.worker("worker_tame")

    def desired_state() -> str:
        return next(one["desired_state"] for one in api.get("/api/v1/workers")["items"] if one["id"] == "worker_tame")

    answer = api.http.post("/api/v1/workers/worker_tame/drain", json={"reason": "new fan"})
    assert (answer.status_code, answer.get_json()["items"][0]["reason"]) == (200, "new fan")
    assert desired_state() == "draining"
    assert api.http.post("/api/v1/workers/worker_tame/quarantine").status_code == 200  # a reason is not needed
    assert desired_state() == "quarantined"
    api.http.post("/api/v1/workers/worker_tame/resume", json={})
    assert desired_state() == "ready"
    assert problem(api.http.post("/api/v1/workers/worker_tame/drain", json={"why": "x"}), 422)["errors"][0]["field"] == "why"
    assert problem(api.http.post("/api/v1/workers/worker_tame/drain", data=b"{", content_type="application/json"), 400)
    events = api.get("/api/v1/events?subject=worker_tame")["items"]
    assert [event["kind"] for event in events] == ["worker.ready", "worker.quarantined", "worker.draining", "worker.started"]


def test_a_worker_is_shown_as_it_is_until_it_is_offline(api: FarmApi) -> None:
    store = api.app_context.store
    told = {"id": "wrk_shown", "name": "shown", "host": "rack", "pid": 7, "device": "cuda:0", "version": "0.1.0+7"}
    workers.register(store, workers.WorkerIdentity(**told, serves=["demo"], facts={"device_name": "H100"}))  # type: ignore[arg-type]

    def shown(query: str = "") -> dict[str, Any] | None:
        return next((one for one in api.get(f"/api/v1/workers{query}")["items"] if one["id"] == "wrk_shown"), None)

    found = shown()
    assert found is not None
    assert {name: found[name] for name in told} == told
    assert (found["serves"], found["facts"], found["state"]) == (["demo"], {"device_name": "H100"}, "starting")
    workers.heartbeat(store, "wrk_shown", WorkerState.BUSY, resident=["demo"], load={"phase": "step"})
    found = shown()
    assert found is not None
    assert (found["state"], found["resident"], found["load"]) == ("busy", ["demo"], {"phase": "step"})
    workers.mark_offline(store, "wrk_shown", api.app_context.settings, "stopped", clean=True)
    assert shown() is None
    found = shown("?include_offline=true")
    assert found is not None
    assert (found["state"], found["reason"]) == ("offline", "stopped")


def test_health_and_readiness(api: FarmApi, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api.get("/healthz")["status"] == "ok"
    assert api.get("/readyz") == {"status": "ready", "database": "ok", "redis": "ok", "requests_unchecked": 0}

    def refuse() -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(api.app_context.redis, "ping", refuse)
    response = api.http.get("/readyz")
    assert response.status_code == 503
    assert response.get_json() == {"status": "not ready", "database": "ok", "redis": "away", "requests_unchecked": 0}


def test_a_database_that_is_away_is_a_503(api: FarmApi, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    def away() -> Any:
        raise OperationalError("SELECT 1", {}, Exception("connection refused"))

    monkeypatch.setattr(api.app_context.store, "read", away)
    monkeypatch.setattr(api.app_context.store, "write", away)
    for response in (api.http.get("/api/v1/jobs"), api.http.post("/api/v1/jobs", json={"prompt": "x"})):
        body = problem(response, 503)
        assert "database" in body["detail"]
        assert response.headers["Retry-After"]
    assert api.http.get("/healthz").status_code == 200


def test_what_nobody_foresaw_is_a_plain_500(
    api: FarmApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("internal detail")

    monkeypatch.setattr("scheduler.queue.pending_reason.PendingReasons.explain", broken)
    job_id = api.inside.submit()[0]
    response = api.http.get(f"/api/v1/jobs/{job_id}")
    body = problem(response, 500)
    assert "internal detail" not in response.text
    logged = caplog.text
    assert "internal detail" in logged
    assert body["instance"].rsplit(":", 1)[1] in logged


def test_every_answer_carries_its_headers(api: FarmApi) -> None:
    for path in ("/api/v1/jobs", "/healthz", "/nope", "/docs", "/static/docs.css", "/api/v1/openapi.json"):
        headers = api.http.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Request-ID"]
    given = {"X-Request-ID": "order-4711-abc"}
    assert api.http.get("/healthz", headers=given).headers["X-Request-ID"] == "order-4711-abc"
    for odd in ("x", "a" * 65, "a b c d e f g", "<script>alert"):
        assert api.http.get("/healthz", headers={"X-Request-ID": odd}).headers["X-Request-ID"].startswith("req_")


def test_a_full_queue_says_when_to_come_back(api: FarmApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.app_context.settings, "max_queued_per_tenant", 0)
    response = api.http.post("/api/v1/jobs", json={"prompt": "one too many"})
    body = problem(response, 429)
    assert (body["limit"], body["value"]) == ("max_queued_per_tenant", 0)
    assert "max_queued_per_tenant = 0" in body["detail"]
    assert int(response.headers["Retry-After"]) >= 1
