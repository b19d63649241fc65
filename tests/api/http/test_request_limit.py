"""Requests per minute: counted by caller, reported in headers, refused with Retry-After, not limited while Redis is down."""

from __future__ import annotations

import re
import time
from itertools import count

import pytest
from limits.storage import RedisStorage
from redis import Redis

from api.http import request_limit
from api.http.request_limit import RequestLimit, Window
from imagefarm.auth import Scope, create_key, rotate_key
from tests.api.farm_api import FarmApi, problem

MINUTES = count(1000)
POLICY = re.compile(r'"requests";q=(\d+);w=60')
STATE = re.compile(r'"requests";r=(\d+);t=(\d+)')


@pytest.fixture
def narrow(keyed: FarmApi, monkeypatch: pytest.MonkeyPatch) -> FarmApi:
    """Three requests a minute, at a time of day that no other test has, so that nothing was counted and no minute ends."""
    monkeypatch.setattr(keyed.app_context.settings, "requests_per_minute", 3)
    at = 60 * (time.time() // 60 + next(MINUTES)) + 18
    monkeypatch.setattr(request_limit, "clock", lambda: at)
    return keyed


def test_the_fourth_of_three_is_refused_and_others_are_not(narrow: FarmApi) -> None:
    mine, other = narrow.key("requests"), narrow.key("requests")
    left = []
    for _ in range(3):
        response = narrow.http.get("/api/v1/jobs", headers=mine)
        assert response.status_code == 200
        assert POLICY.fullmatch(response.headers["RateLimit-Policy"])[1] == "3"
        state = STATE.fullmatch(response.headers["RateLimit"])
        left.append((int(state[1]), int(state[2])))
    assert left == [(2, 42), (1, 42), (0, 42)]
    refusal = narrow.http.post("/api/v1/jobs", json={"prompt": "a cup"}, headers=mine)
    body = problem(refusal, 429)
    assert (body["limit"], body["value"], body["retry_after"]) == ("requests_per_minute", 3, 42)
    assert refusal.headers["Retry-After"] == "42"
    assert refusal.headers["RateLimit"] == '"requests";r=0;t=42'
    assert narrow.http.get("/api/v1/jobs", headers=other).status_code == 200
    page = narrow.http.get("/jobs", headers=mine | {"Accept": "text/html"})
    assert (page.status_code, page.mimetype, page.headers["Retry-After"]) == (429, "text/html", "42")


def test_the_next_minute_begins_anew(narrow: FarmApi, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = narrow.key("requests")
    asked = [narrow.http.get("/api/v1/jobs", headers=mine).status_code for _ in range(4)]
    assert asked == [200, 200, 200, 429]
    later = request_limit.clock() + 42
    monkeypatch.setattr(request_limit, "clock", lambda: later)
    assert narrow.http.get("/api/v1/jobs", headers=mine).headers["RateLimit"] == '"requests";r=2;t=60'


def test_many_left_cost_few_round_trips_and_the_limit_holds_for_all_processes(
    narrow: FarmApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(narrow.app_context.settings, "requests_per_minute", 1000)
    processes = [RequestLimit(narrow.app_context.settings) for _ in range(2)]
    asked = []
    real = RedisStorage.incr
    monkeypatch.setattr(RedisStorage, "incr", lambda *args, **more: asked.append(1) or real(*args, **more))

    def used(window: Window | None) -> int:
        assert window is not None, "Redis is there"
        return window.used

    first = [processes[0].count("one") for _ in range(3)]
    assert [used(window) for window in first] == [1, 2, 3], "each count is right before Redis has received it"
    taken = 0
    for turn in range(600):
        taken += used(processes[0].count("two")) <= 1000
        if turn == 300:
            assert len(asked) < 40
        taken += used(processes[1].count("two")) <= 1000
    assert taken == 1000, "near its end the limit is counted exactly"
    for process in processes:
        process.close()


def test_a_key_that_replaces_another_goes_on_where_it_was(narrow: FarmApi) -> None:
    old = create_key(narrow.app_context.store, name="x", tenant="requests")
    new = rotate_key(narrow.app_context.store, old.info.id)
    used = [
        narrow.http.get("/api/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code
        for key in (old.key, new.key, old.key, new.key)
    ]
    assert used == [200, 200, 200, 429]


def test_who_is_unknown_is_counted_by_address(narrow: FarmApi) -> None:
    wrong = {"Authorization": "Bearer if_aaaaaaaaaa_" + "b" * 43}

    def ask(address: str) -> int:
        return narrow.http.get("/api/v1/jobs", headers=wrong, environ_base={"REMOTE_ADDR": address}).status_code

    assert [ask("192.0.2.1") for _ in range(4)] == [401, 401, 401, 429]
    assert ask("192.0.2.2") == 401
    assert narrow.http.get("/api/v1/openapi.json", environ_base={"REMOTE_ADDR": "192.0.2.1"}).status_code == 429


def test_what_is_free(narrow: FarmApi) -> None:
    mine = narrow.key("requests")
    for path in ("/healthz", "/readyz", "/static/farm.css", "/api/v1/events/stream"):
        for _ in range(4):
            response = narrow.http.get(path, headers=mine)
            assert response.status_code != 429, path
            assert "RateLimit" not in response.headers
            response.close()
    assert narrow.http.get("/api/v1/jobs", headers=mine).headers["RateLimit"] == '"requests";r=2;t=42'


def test_zero_is_no_limit(keyed: FarmApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed.app_context.settings, "requests_per_minute", 0)
    mine = keyed.key("requests")
    response = keyed.http.get("/api/v1/limits", headers=mine)
    assert response.get_json()["requests"] == {"limit": None, "used": None, "window_s": 60, "resets_in_s": None}
    assert "RateLimit-Policy" not in response.headers


def test_a_redis_that_does_not_answer_lets_through_and_is_counted(
    narrow: FarmApi, redis_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mine = narrow.key("requests")
    monkeypatch.setattr(request_limit, "PAUSE_S", 0.5)
    before = narrow.app_context.requests.unchecked
    redis = Redis.from_url(redis_url)
    redis.execute_command("CLIENT", "PAUSE", "1500", "ALL")
    began = time.monotonic()
    answers = [narrow.http.get("/api/v1/jobs", headers=mine) for _ in range(6)]
    took = time.monotonic() - began
    assert [answer.status_code for answer in answers] == [200] * 6
    assert "RateLimit" not in answers[0].headers
    assert took < 1.4, "it is asked once in a while, not by every request"
    redis.ping()  # answered when the pause is over
    while (left := narrow.app_context.requests.asks_again_in_s) > 0:
        time.sleep(left)
    assert narrow.get("/readyz")["requests_unchecked"] == before + 6
    assert narrow.http.get("/api/v1/jobs", headers=mine).headers["RateLimit-Policy"] == '"requests";q=3;w=60'
    assert capfd.readouterr().out.count("requests.uncounted") <= 1


def test_a_caller_sees_all_its_limits(keyed: FarmApi) -> None:
    own = {"queued": 5, "running": 2, "images_per_day": 10, "pixels": 4096, "steps": 4}
    made = create_key(keyed.app_context.store, name="limited", tenant="all limits", limits=own)
    mine = {"Authorization": f"Bearer {made.key}"}
    small = {"width": 64, "height": 64, "steps": 4}
    waiting = keyed.submit(headers=mine, count=2, **small)
    keyed.submit(headers=keyed.key("all limits"))
    told = keyed.get("/api/v1/limits", headers=mine)
    assert told["key"] == {
        "queued": {"limit": 5, "used": 1},
        "running": {"limit": 2, "used": 0},
        "images_per_day": {"limit": 10, "used": 2},
        "pixels": 4096,
        "steps": 4,
    }
    assert told["tenant"]["queued"] == {"limit": 1_000_000, "used": 2}
    assert told["tenant"]["images_per_day"] == {"limit": None, "used": 3}
    assert (told["requests"]["limit"], told["requests"]["used"]) == (30_000, 2)
    keyed.claim(waiting["id"])
    told = keyed.get("/api/v1/limits", headers=mine)
    assert (told["key"]["queued"]["used"], told["key"]["running"]["used"]) == (0, 1)
    assert keyed.get("/api/v1/limits", headers=keyed.key("all limits", Scope.READ))["key"] is None
