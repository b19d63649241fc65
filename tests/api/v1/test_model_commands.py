"""Commands to load or unload a model: they reach the right workers, and each worker gets each command once."""

from __future__ import annotations

import io

from imagefarm.states import WorkerState
from scheduler.queue.workers import heartbeat
from tests.api.farm_api import FarmApi


def test_workers_that_serve_the_model_are_told_once(api: FarmApi) -> None:
    http, store = api.http, api.app_context.store
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


def test_a_command_whose_length_is_not_told_is_read_too(api: FarmApi) -> None:
    """In pieces, a body says no length: what it asks for must not be taken for nothing, which is everybody."""
    for path, body in (
        ("/api/v1/models/demo/unload", b'{"worker": "nobody"}'),
        ("/api/v1/workers/worker_1/drain", b'{"why": "x"}'),
    ):
        pieces = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_TYPE": "application/json"}
        response = api.http.post(path, input_stream=io.BytesIO(body), environ_overrides=pieces)
        assert response.status_code in {404, 422}, response.text
