"""Orders to load a model or let it go: who is told, and that each worker hears of each once."""

from __future__ import annotations

from imagefarm.states import WorkerState
from scheduler.workers import heartbeat
from tests.api.farm_api import FarmApi


def test_workers_that_serve_the_model_are_told_once(api: FarmApi) -> None:
    http, store = api.http, api.farm.store
    worker = api.inside.worker("wrk_1")
    told = http.post("/api/v1/models/demo/warm", json={})
    assert told.status_code == 202
    assert told.get_json()["model"] == "demo"
    assert worker in told.get_json()["workers"]
    assert http.post("/api/v1/models/demo/unload", json={"worker": worker}).status_code == 202
    assert http.post("/api/v1/models/demo/unload", json={"worker": "another"}).status_code == 404
    nobody = http.post("/api/v1/models/sdxl/warm")
    assert nobody.status_code == 404, "it serves the demo only"
    assert "no worker that serves model sdxl is running" in nobody.get_json()["detail"]
    assert http.post("/api/v1/models/nope/warm").status_code == 422
    assert http.post("/api/v1/models/demo/warm", json={"worker": 3}).status_code == 422

    heard = [heartbeat(store, worker, WorkerState.READY, resident=["demo"], load={}) for _ in range(2)]
    assert heard == [("ready", [{"do": "warm", "model": "demo"}, {"do": "unload", "model": "demo"}]), ("ready", [])]


def test_a_model_tells_how_it_is_held(api: FarmApi) -> None:
    model = api.get("/api/v1/models/demo")
    assert (model["tier"], model["weights"], model["bytes"]) == ("", "", None)
