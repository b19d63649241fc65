"""Server-sent events: a job followed to its end, resumed, bounded; everybody's stream keeps to its tenant."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import numpy as np
import pytest
from PIL import Image as Picture
from werkzeug.test import TestResponse

from api.http import stream_access
from api.live.event_fanout import QUEUE_LENGTH, EventFanout
from api.v1 import events
from imagefarm.auth import Scope, create_key, revoke_key
from imagefarm.errors import Unavailable
from imagefarm.redis import JobProgress, connect_redis, publish, publish_progress
from tests.api.farm_api import FarmApi, problem
from worker.engine.results import Preview
from worker.render.progress import preview_json

Sent = tuple[str, int | None, dict[str, Any]]
"""An event as a reader gets it: kind, id, data."""


def open_stream(api: FarmApi, path: str, headers: dict[str, str] | None = None) -> TestResponse:
    response = api.app.test_client().get(path, headers=headers, buffered=False)
    assert response.status_code == 200, response.text
    assert response.mimetype == "text/event-stream"
    return response


def read(response: TestResponse) -> Iterator[Sent]:
    """The events of a stream; comments are passed over."""
    for chunk in response.response:
        lines = dict(line.split(": ", 1) for line in str(chunk, "utf-8").strip().split("\n") if not line.startswith(":"))
        if "event" in lines:
            yield lines["event"], int(lines["id"]) if "id" in lines else None, json.loads(lines["data"])
    response.close()  # as a server does at the end of a stream


def until(sent: Iterator[Sent], kind: str) -> list[Sent]:
    """Events up to and with the first of that kind."""
    found = []
    for event in sent:
        found.append(event)
        if event[0] == kind:
            return found
    raise AssertionError(f"the stream ended without {kind}: {found}")


def eventually(true: Callable[[], bool], what: str) -> None:
    for _ in range(200):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(what)


def tell_progress(api: FarmApi, job_id: str, step: int) -> None:
    progress = JobProgress(job_id, "tenant_default", {"step": step, "steps": 8})
    publish_progress(api.app_context.redis, api.app_context.settings.redis_prefix, [progress])


def test_a_job_is_followed_to_its_end(api: FarmApi) -> None:
    job_id = api.submit("followed")["id"]
    response = open_stream(api, f"/api/v1/jobs/{job_id}/events")
    sent = read(response)
    [submitted, first] = until(sent, "job")
    assert submitted[0] == "job.submitted"
    assert first[2]["state"] == "queued"
    claimed = api.claim(job_id)
    assert until(sent, "job")[-1][2]["state"] == "running"

    def steps() -> None:
        eventually(lambda: api.app_context.redis.pubsub_numsub(api.app_context.events.channel)[0][1] > 0, "nobody listens")
        tell_progress(api, job_id, 5)

    threading.Thread(target=steps).start()
    assert until(sent, "progress")[-1][2] == {"step": 5, "steps": 8}
    api.render(claimed)
    rest = list(sent)
    assert [event[0] for event in rest] == ["job.succeeded", "job"]
    assert rest[1][2]["state"] == "succeeded"
    assert len(rest[1][2]["images"]) == 1
    response.close()
    assert api.app_context.events.streams == 0


def test_previews_come_with_the_progress_of_their_job(api: FarmApi) -> None:
    job_id = api.submit("previewed", preview=True)["id"]
    path = f"/api/v1/jobs/{job_id}/preview"
    problem(api.http.get(path), 404)
    claimed = api.claim(job_id)
    assert claimed.preview
    small = Preview(0, 3, np.zeros((16, 8, 3), np.uint8))
    shown = preview_json(small)
    responses = [open_stream(api, address) for address in (f"/api/v1/jobs/{job_id}/events", "/api/v1/events/stream")]
    own, everything = [read(response) for response in responses]
    until(own, "job")
    next(iter(responses[1].response))
    eventually(lambda: api.app_context.redis.pubsub_numsub(api.app_context.events.channel)[0][1] > 0, "nobody listens")
    progress = {"step": 3, "steps": 8}
    publish_progress(
        api.app_context.redis, api.app_context.settings.redis_prefix, [JobProgress(job_id, "tenant_default", progress, [shown])]
    )
    assert until(own, "progress")[-1][2] == {**progress, "previews": [shown]}
    [told] = until(everything, "job.progress")[-1][2]["previews"]
    assert told == {"index": 0, "step": 3, "width": 8, "height": 16, "media": "image/webp"}
    response = api.http.get(path + "?index=0&step=3")
    with Picture.open(io.BytesIO(response.data)) as picture:
        assert (picture.format, picture.size, response.content_type) == ("WEBP", (8, 16), "image/webp")
    assert response.headers["Cache-Control"] == "no-store"
    problem(api.http.get(path + "?index=1"), 404)
    api.render(claimed)
    problem(api.http.get(path), 404)  # the picture itself is there
    for response in responses:
        response.close()


def test_a_reader_resumes_where_it_was(api: FarmApi) -> None:
    job_id = api.rendered("resumed")["id"]
    path = f"/api/v1/jobs/{job_id}/events"
    whole = list(read(open_stream(api, path)))
    assert [event[0] for event in whole] == ["job.submitted", "job.claimed", "job.succeeded", "job"]
    ids = [event[1] for event in whole]
    rest = list(read(open_stream(api, path, {"Last-Event-ID": str(ids[0])})))
    assert [event[0] for event in rest] == ["job.claimed", "job.succeeded", "job"]
    assert api.http.get(path, headers={"Last-Event-ID": str(ids[-1])}).status_code == 204  # browsers stop at this
    for wrong in ("abc", "-1", "1" * 30, "١"):
        problem(api.http.get(path, headers={"Last-Event-ID": wrong.encode().decode("latin-1")}), 422)


def test_a_missed_event_is_found_in_the_database(api: FarmApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "POLL_S", 0.2)
    monkeypatch.setattr(api.app_context.store, "listener", None)  # nothing goes through Redis
    job_id = api.submit("missed")["id"]
    sent = read(open_stream(api, f"/api/v1/jobs/{job_id}/events"))
    until(sent, "job")
    api.http.post(f"/api/v1/jobs/{job_id}/cancel")
    assert list(sent)[-1][2]["state"] == "cancelled"


def test_everybodys_stream_keeps_to_its_tenant(api: FarmApi) -> None:
    mine, theirs = api.key("mine"), api.key("theirs")
    responses = [open_stream(api, "/api/v1/events/stream", key) for key in (mine, theirs, api.key("ops", Scope.FARM))]
    streams = [read(response) for response in responses]
    for response in responses:
        next(iter(response.response))
    eventually(lambda: api.app_context.redis.pubsub_numsub(api.app_context.events.channel)[0][1] > 0, "nobody listens")
    first = api.submit("not for all", headers=mine)["id"]
    second = api.submit("nor this", headers=theirs)["id"]
    api.inside.worker("worker_seen")
    assert until(streams[0], "job.submitted")[-1][2]["subject"] == first
    assert until(streams[1], "job.submitted")[-1][2]["subject"] == second
    seen = until(streams[2], "worker.started")
    assert {event[2]["subject"] for event in seen} >= {first, second, "worker_seen"}
    publish(
        api.app_context.redis,
        api.app_context.settings.redis_prefix,
        {"kind": "bulk.changed", "subject": "farm", "tenant_id": None, "data": {}},
    )
    assert [event[0] for event in until(streams[0], "bulk.changed")] == ["bulk.changed"]
    for response in responses:
        response.close()


STREAMS = ("/api/v1/events/stream", "/api/v1/jobs/{job_id}/events")


@pytest.mark.parametrize("path", STREAMS)
def test_a_revoked_key_hears_no_more(api: FarmApi, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    assert stream_access.CHECK_S + 3 <= 15
    monkeypatch.setattr(stream_access, "CHECK_S", 0.2)
    made = create_key(api.app_context.store, name="short-lived", tenant="mine")
    headers = {"Authorization": f"Bearer {made.key}"}
    job_id = api.submit("still waiting", headers=headers)["id"]
    response = open_stream(api, path.format(job_id=job_id), headers)
    texts = iter(response.response)
    for _ in range(3):  # the retry time, the first event and a check that finds the key in force
        next(texts)
    revoke_key(api.app_context.store, made.info.id)
    revoked_at = time.monotonic()
    for _ in texts:
        assert time.monotonic() - revoked_at < 15
    response.close()


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_ends_with_its_token(api: FarmApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str) -> None:
    settings, secret = api.app_context.settings, "a secret of thirty-two bytes and some more"
    (tmp_path / "secret").write_text(secret)
    for name, value in {"secret_file": tmp_path / "secret", "issuer": "https://id.example", "audience": "imagefarm"}.items():
        monkeypatch.setattr(settings, f"jwt_{name}", value)
    claims = {"iss": "https://id.example", "aud": "imagefarm", "sub": "ada", "tenant": "mine", "scope": "read submit"}
    expires_at = time.time() + 3
    token = jwt.encode(claims | {"exp": expires_at}, secret, "HS256")
    headers = {"Authorization": f"Bearer {token}"}
    job_id = api.submit("longer than the token", headers=headers)["id"]
    response = open_stream(api, path.format(job_id=job_id), headers)
    for _ in response.response:
        assert time.time() < expires_at + 10
    assert time.time() >= int(expires_at)
    response.close()


def test_streams_are_bounded(api: FarmApi, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = api.submit("bounded")["id"]
    monkeypatch.setattr(api.app_context.events, "max_streams", 2)
    held = [open_stream(api, f"/api/v1/jobs/{job_id}/events") for _ in range(2)]
    refused = api.http.get("/api/v1/events/stream")
    told = problem(refused, 503)
    assert (told["limit"], told["value"]) == ("max_streams", 2)
    assert int(refused.headers["Retry-After"]) > 0
    waited = api.http.post("/api/v1/jobs", json={"prompt": "x"}, headers={"Prefer": "wait=10"})
    assert waited.status_code == 202  # no place to wait in: answered at once
    held[0].close()
    head = api.http.head(f"/api/v1/jobs/{job_id}/events")
    assert head.status_code == 200
    head.close()
    open_stream(api, f"/api/v1/jobs/{job_id}/events").close()  # neither kept its place
    held[1].close()
    assert api.app_context.events.streams == 0


def test_no_database_session_is_held(api: FarmApi) -> None:
    job_id = api.submit("patient")["id"]
    held = [open_stream(api, f"/api/v1/jobs/{job_id}/events") for _ in range(8)]
    for response in held:
        until(read(response), "job")
    assert api.app_context.store.reader.pool.checkedout() == 0  # type: ignore[attr-defined]
    for response in held:
        response.close()


def test_a_slow_reader_is_closed_and_others_go_on(api: FarmApi) -> None:
    fanout = EventFanout(api.app_context.redis, api.app_context.settings.redis_prefix, max_streams=5)
    slow, quick = fanout.subscribe(lambda event: True), fanout.subscribe(lambda event: event["kind"] == "last")
    eventually(lambda: api.app_context.redis.pubsub_numsub(fanout.channel)[0][1] > 0, "nobody listens")
    for number in range(QUEUE_LENGTH + 10):
        publish(api.app_context.redis, api.app_context.settings.redis_prefix, {"kind": "bulk.changed", "subject": str(number)})
    publish(api.app_context.redis, api.app_context.settings.redis_prefix, {"kind": "last"})
    event = quick.next(5)
    assert event is not None
    assert event["kind"] == "last"
    assert slow.closed
    kinds = []
    while (event := slow.next(0.1)) is not None and event["kind"] != "close":
        kinds.append(event["kind"])
    assert len(kinds) == QUEUE_LENGTH
    fanout.close()
    fanout.join()
    with pytest.raises(Unavailable):
        fanout.subscribe(lambda event: True)


def test_readers_are_notified_when_redis_is_down_and_back(api: FarmApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.live.event_fanout.RETRY_S", 0.1)
    nowhere = api.app_context.settings.model_copy(update={"redis_url": "unix:///nowhere/redis.sock"})
    fanout = EventFanout(connect_redis(nowhere, timeout_s=1), "x", max_streams=5)
    first = fanout.subscribe(lambda event: False)
    event = first.next(5)
    assert event is not None
    assert event["kind"] == "away"
    second = fanout.subscribe(lambda event: False)  # a later reader is notified too
    event = second.next(5)
    assert event is not None
    assert event["kind"] == "away"
    fanout.redis = api.app_context.redis
    for subscription in (first, second):
        event = subscription.next(5)
        assert event is not None
        assert event["kind"] == "back"
    assert fanout.failures >= 1
    fanout.close()
    fanout.join()


def test_noise_on_the_channel_does_no_harm(api: FarmApi) -> None:
    response = open_stream(api, "/api/v1/events/stream", api.key("ops", Scope.FARM))
    sent = read(response)
    next(iter(response.response))
    eventually(lambda: api.app_context.redis.pubsub_numsub(api.app_context.events.channel)[0][1] > 0, "nobody listens")
    for noise in ("", "not json", "[]", '{"kind": 5}', '{"subject": "x"}'):
        api.app_context.redis.publish(api.app_context.events.channel, noise)
    publish(api.app_context.redis, api.app_context.settings.redis_prefix, {"kind": "evil\ndata: x", "text": "a\nb"})
    event = until(sent, "evildata: x")[-1]  # a word on the pace may come before it
    assert event[2] == {"text": "a\nb"}
    response.close()


def test_the_audit_is_read_page_by_page(api: FarmApi) -> None:
    job_id = api.rendered("audited")["id"]
    kinds: list[str] = []
    cursor = None
    while True:
        query = {"subject": job_id, "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = api.get("/api/v1/events", query_string=query)
        kinds += [item["kind"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert kinds == ["job.succeeded", "job.claimed", "job.submitted"]
    assert len(api.get("/api/v1/events?limit=200")["items"]) > 3


def test_the_audit_is_verified(api: FarmApi) -> None:
    api.inside.check_books()
    found = api.get("/api/v1/audit/verify")
    assert found["whole"] is True
    assert found["sealed"] > 0
    assert found["broken_at"] is None
