"""A catalogue of bad requests: each is refused with a problem that names the field and the remedy, and nothing is stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import func, select

from imagefarm.store.models import Event, Idempotency, Job
from tests.api.farm_api import JSON, FarmApi, problem

OK: dict[str, Any] = {"prompt": "a red mug"}
SURROGATE = '"\\ud800"'
NUL = '"a\\u0000b"'

FIELDS = [
    # the field that is off, its value, a word of the answer
    ("prompt", None, "not text"),
    ("prompt", "", "is empty"),
    ("prompt", "   \n\t　", "empty"),
    ("prompt", 7, "not text"),
    ("prompt", ["a"], "not text"),
    ("prompt", {"a": 1}, "not text"),
    ("prompt", True, "not text"),
    ("prompt", "x" * 4001, "longer than 4000"),
    ("negative_prompt", "x" * 4001, "longer than 4000"),
    ("negative_prompt", 0, "not text"),
    ("model", "nope", "use one of: demo"),
    ("model", "", "is empty"),
    ("model", "../../etc/passwd", "no model"),
    ("model", "x" * 65, "longer"),
    ("model", 5, "not text"),
    ("width", 65, "use 64"),
    ("width", 0, "at least 16"),
    ("width", -64, "at least 16"),
    ("width", 4097, "at most 4096"),
    ("width", 10**30, "at most 4096"),
    ("width", 64.5, "whole number"),
    ("width", "wide", "whole number"),
    ("width", True, "not true or false"),
    ("width", 112, "112"),
    ("height", False, "not true or false"),
    ("height", [], "whole number"),
    ("steps", 0, "at least 1"),
    ("steps", 201, "at most 200"),
    ("steps", 51, "most of model demo"),
    ("steps", True, "not true or false"),
    ("guidance", -0.1, "at least 0"),
    ("guidance", 51, "at most 50"),
    ("guidance", "high", "not a number"),
    ("guidance", True, "not true or false"),
    ("sampler", "euler", "no sampler"),
    ("sampler", "", "is empty"),
    ("seed", -1, "at least 0"),
    ("seed", 2**64, "at most"),
    ("seed", str(2**64), "at most"),
    ("seed", 10**60, "at most"),
    ("seed", 1.5, "whole number"),
    ("seed", "-1", "whole number"),
    ("seed", "0x10", "whole number"),
    ("seed", "٤٢", "whole number"),
    ("seed", "", "whole number"),
    ("seed", True, "not true or false"),
    ("count", 0, "at least 1"),
    ("count", 65, "at most 64"),
    ("count", 17, "several jobs"),
    ("count", False, "not true or false"),
    ("loras", {}, "list"),
    ("loras", [{"name": "nope"}], "no LoRA"),
    ("loras", [{"weight": 1}], "missing"),
    ("loras", [{"name": "a", "weight": 9}], "at most 4"),
    ("loras", [{"name": "a", "extra": 9}], "known field"),
    ("loras", [{"name": "a"}] * 9, "more than 8"),
    ("init_image", "asset_1", "form"),
    ("init_image", "/etc/passwd", "form"),
    ("init_image", "asset_01JD0000000000000000000000", "no such asset"),
    ("mask", "asset_01JD0000000000000000000000", "needs an init_image"),
    ("format", "gif", "png"),
    ("quality", 90, "png is lossless"),
    ("preview", "often", "true or false"),
    ("strength", 0.5, "needs an init_image"),
    ("strength", 1.5, "at most 1"),
    ("upscale", {"model": "esrgan"}, "no upscaler"),
    ("upscale", {"scale": 8}, "at most 4"),
    ("upscale", True, "object"),
    ("priority", "urgent", "'interactive' or 'bulk'"),
    ("priority", None, "known values"),
    ("labels", {"a": 1}, "not text"),
    ("labels", {"": "x"}, "is empty"),
    ("labels", {"x" * 65: "x"}, "longer"),
    ("labels", {"a": "x" * 257}, "longer"),
    ("labels", {f"k{n}": "" for n in range(33)}, "more than 32"),
    ("labels", ["a"], "object"),
    ("custom_id", "", "is empty"),
    ("custom_id", "x" * 129, "longer"),
    ("expires_in", 0, "more than 0"),
    ("expires_in", 10**9, "at most"),
    ("promt", "typo", "did you mean prompt?"),
    ("constructor", 1, "known are"),
]


@pytest.mark.parametrize(("field", "value", "word"), FIELDS, ids=[f"{n}-{f}" for n, (f, *_) in enumerate(FIELDS)])
def test_a_wrong_field_is_named(api: FarmApi, field: str, value: Any, word: str) -> None:
    stored = everything_stored(api)
    body = problem(api.http.post("/api/v1/jobs", json=OK | {field: value}), 422)
    assert body["errors"][0]["field"].split(".")[0] == field
    assert all(error["detail"] and "remedy" in error for error in body["errors"])
    assert word in json.dumps(body["errors"], ensure_ascii=False)
    assert everything_stored(api) == stored


BODIES = [
    # the body, status, a word of the answer
    (b"", 400, "is empty"),
    (b"   ", 400, "is empty"),
    (b"{", 400, "line 1 column 2"),
    (b'{"prompt": "a",\n "steps": }', 400, "line 2 column 11"),
    (b'{"prompt": "a"} x', 400, "line 1 column 17"),
    (b"{'prompt': 'a'}", 400, "line 1 column 2"),
    (b'{"prompt": "a", }', 400, "line 1 column"),
    (b'{"prompt": "a\nb"}', 400, "control character"),
    (b'{"prompt": "\\x"}', 400, "escape"),
    (b'{"prompt": "a", "guidance": NaN}', 400, "NaN"),
    (b'{"prompt": "a", "guidance": Infinity}', 400, "Infinity"),
    (b'{"prompt": "a", "guidance": -Infinity}', 400, "-Infinity"),
    (b'{"prompt": "a", "guidance": 1e999}', 400, "too large"),
    (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", 400, "5000 digits"),
    (b'{"prompt": "a", "prompt": "b"}', 400, "given twice"),
    (b'{"prompt": "a", "labels": {"x": "1", "x": "2"}}', 400, "given twice"),
    (b"[" * 100_000, 400, "nested deeper"),
    (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, 400, "nested deeper"),
    (b'{"prompt": "a", "labels": ' + b"[" * 33 + b"]" * 33 + b"}", 400, "nested deeper"),
    (b"\xff\xfe{\x00}\x00", 400, "UTF-8"),
    (b'{"prompt": "\xc3\x28"}', 400, "UTF-8"),
    (b'{"prompt": "\xed\xa0\x80"}', 400, "UTF-8"),
    (b'{"prompt": ' + SURROGATE.encode() + b"}", 400, "surrogate"),
    (b'{"prompt": ' + NUL.encode() + b"}", 400, "NUL"),
    (b'{"prompt": "a", "labels": {"k": ' + SURROGATE.encode() + b"}}", 400, "labels.k"),
    (b'{"prompt": "a", "labels": {' + SURROGATE.encode() + b': "v"}}', 400, "surrogate"),
    (b'{"prompt": "a", ' + SURROGATE.encode() + b": 1}", 400, "surrogate"),
    (b'{"prompt": "a", ' + NUL.encode() + b": 1}", 400, "NUL"),
    (b'{"prompt": "a", "model": ' + NUL.encode() + b"}", 400, "NUL"),
    (b"null", 422, "not an object"),
    (b"[]", 422, "not an object"),
    (b'"prompt"', 422, "not an object"),
    (b"7", 422, "not an object"),
    (b"{}", 422, "missing"),
    (b'{"prompt": "a", "' + b"k" * 100_000 + b'": 1}', 422, "known field"),
    (b'{"prompt": "a", ' + b", ".join(b'"k%d": 1' % n for n in range(5000)) + b"}", 422, "more errors"),
    (b'{"prompt": "' + b"a" * 3_000_000 + b'"}', 413, "larger than 2097152 bytes"),
]


@pytest.mark.parametrize(("body", "status", "word"), BODIES, ids=[f"{n}-{word}" for n, (*_, word) in enumerate(BODIES)])
def test_a_broken_body_is_explained(api: FarmApi, body: bytes, status: int, word: str) -> None:
    stored = everything_stored(api)
    answer = problem(api.http.post("/api/v1/jobs", data=body, content_type=JSON, headers={"Idempotency-Key": "k"}), status)
    assert word in json.dumps(answer, ensure_ascii=False)
    assert len(json.dumps(answer)) < 20_000
    assert everything_stored(api) == stored


HEADERS = [
    ({"Content-Type": "text/plain"}, 415, "text/plain"),
    ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "send application/json"),
    ({"Content-Type": "multipart/form-data; boundary=x"}, 415, "send application/json"),
    ({"Content-Type": "application/json; charset=utf-16"}, 415, "utf-16"),
    ({"Content-Type": ""}, 415, "missing"),
    ({"Content-Type": JSON, "Content-Encoding": "gzip"}, 415, "gzip"),
    ({"Content-Type": JSON, "Idempotency-Key": ""}, 422, "Idempotency-Key"),
    ({"Content-Type": JSON, "Idempotency-Key": "x" * 256}, 422, "Idempotency-Key"),
    ({"Content-Type": JSON, "Idempotency-Key": "schlüssel"}, 422, "Idempotency-Key"),
    ({"Content-Type": JSON, "Authorization": "Basic dTpw"}, 401, "Bearer"),
    ({"Content-Type": JSON, "Authorization": "Bearer"}, 401, "Bearer"),
    ({"Content-Type": JSON, "Authorization": "Bearer if_nope_nope"}, 401, "unknown or revoked"),
    ({"Content-Type": JSON, "Authorization": "Bearer if_ü_x"}, 401, "unknown or revoked"),
    ({"Content-Type": JSON, "Host": "evil.example"}, 403, "localhost"),
    ({"Content-Type": JSON, "Host": "127.0.0.1.evil.example:8000"}, 403, "localhost"),
    ({"Content-Type": JSON, "Host": "localhost/<script>"}, 400, "Host"),
    ({"Content-Type": JSON, "Host": ""}, 400, "Host"),
    ({"Content-Type": JSON, "Host": "localhost:99999999"}, 400, "Host"),
    ({"Content-Type": JSON, "Origin": "https://evil.example"}, 403, "another origin"),
    ({"Content-Type": JSON, "Origin": "null"}, 403, "another origin"),
    ({"Content-Type": JSON, "Sec-Fetch-Site": "cross-site"}, 403, "another origin"),
]


@pytest.mark.parametrize(("headers", "status", "word"), HEADERS, ids=[f"{n}-{w}" for n, (*_, w) in enumerate(HEADERS)])
def test_a_wrong_header_is_explained(api: FarmApi, headers: dict[str, str], status: int, word: str) -> None:
    stored = everything_stored(api)
    answer = problem(api.http.post("/api/v1/jobs", data=json.dumps(OK), headers=headers), status)
    assert word in json.dumps(answer, ensure_ascii=False)
    assert everything_stored(api) == stored


URLS = [
    ("GET", "/api/v1/jobs?limit=0", 422, "at least 1"),
    ("GET", "/api/v1/jobs?limit=201", 422, "at most 200"),
    ("GET", "/api/v1/jobs?limit=ten", 422, "whole number"),
    ("GET", "/api/v1/jobs?limit=1&limit=2", 422, "more than once"),
    ("GET", "/api/v1/jobs?state=done", 422, "state.0"),
    ("GET", "/api/v1/jobs?states=queued", 422, "did you mean state?"),
    ("GET", "/api/v1/jobs?label=sku", 422, "label.0"),
    ("GET", "/api/v1/jobs?label=:x", 422, "label.0"),
    ("GET", "/api/v1/jobs?text=", 422, "is empty"),
    ("GET", "/api/v1/jobs?text=a%00b", 422, "NUL"),
    ("GET", "/api/v1/jobs?model=%00", 422, "NUL"),
    ("GET", "/api/v1/jobs?%00=1", 422, "NUL"),
    ("GET", "/api/v1/jobs?created_after=yesterday", 422, "2026-11-21T08:30:00Z"),
    ("GET", "/api/v1/jobs?created_after=2026-13-01T00:00:00Z", 422, "is not a time"),
    ("GET", "/api/v1/jobs?created_after=2026-01-01T00:00:00+02:00", 422, "%2B"),
    ("GET", "/api/v1/jobs?created_before=1700000000", 422, "is not a time"),
    ("GET", "/api/v1/jobs?cursor=%F0%9F%92%A5", 422, "cursor"),
    ("GET", "/api/v1/images?sha256=xyz", 422, "sha256"),
    ("GET", f"/api/v1/images?sha256={'a' * 64}&pixel_sha256={'b' * 64}", 422, "send one of them"),
    ("GET", "/api/v1/images?cursor=abc", 422, "cursor"),
    ("GET", "/api/v1/images/img_1", 404, "nothing is at"),
    ("GET", "/api/v1/images/img_01JD0000000000000000000000", 404, "no image"),
    ("GET", "/api/v1/images/%00/file", 404, "nothing is at"),
    ("GET", "/api/v1/models/nope", 422, "use one of"),
    ("GET", "/api/v1/queue?x=1", 422, "known parameter"),
    ("GET", "/api/v1/workers?include_offline=perhaps", 422, "true or false"),
    ("GET", "/api/v1/events?limit=1000", 422, "at most 200"),
    ("GET", "/api/v1/events?cursor=AAAA", 422, "cursor"),
    ("POST", "/api/v1/workers/nobody/drain", 404, "nobody"),
    ("POST", "/api/v1/workers/%00/resume", 404, "invalid characters"),
    ("DELETE", "/api/v1/keys/nope", 404, "nope"),
    ("POST", "/api/v1/images/lookup", 415, "multipart/form-data"),
    ("GET", "/api/v1/nothing", 404, "/api/v1/nothing"),
    ("GET", "/api/v1/jobs/", 404, "nothing is at"),
    ("GET", "/<script>alert(1)</script>", 404, "nothing is at"),
    ("GET", "/static/../app.py", 404, "nothing is at"),
    ("GET", "/static/..%2fapp.py", 404, "nothing is at"),
    ("DELETE", "/api/v1/jobs", 405, "use"),
    ("PATCH", "/api/v1/queue", 405, "use"),
    ("OPTIONS", "/api/v1/jobs", 405, "use"),
    ("BREW", "/api/v1/jobs", 405, "use"),
]


@pytest.mark.parametrize(("method", "url", "status", "word"), URLS, ids=[f"{m} {u[:60]}" for m, u, *_ in URLS])
def test_a_wrong_address_is_explained(api: FarmApi, method: str, url: str, status: int, word: str) -> None:
    answer = problem(api.http.open(url, method=method), status)
    assert word in json.dumps(answer, ensure_ascii=False)


KEYS = [
    ({}, "name"),
    ({"name": ""}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"name": " a"}, "name"),
    ({"name": "a", "scopes": []}, "scopes"),
    ({"name": "a", "scopes": ["root"]}, "scopes"),
    ({"name": "a", "scopes": "admin"}, "scopes"),
    ({"name": "a", "tenant": "x" * 65}, "tenant"),
    ({"name": "a", "key": "if_mine"}, "key"),
]


@pytest.mark.parametrize(("body", "field"), KEYS)
def test_a_bad_key_is_not_made(api: FarmApi, body: dict[str, Any], field: str) -> None:
    answer = problem(api.http.post("/api/v1/keys", json=body), 422)
    assert answer["errors"][0]["field"].split(".")[0] == field
    assert api.get("/api/v1/keys")["items"] == []


def test_all_wrong_fields_are_named_at_once(api: FarmApi) -> None:
    body = problem(api.http.post("/api/v1/jobs", json={"steps": "many", "width": -1, "seeds": 4}), 422)
    assert {error["field"] for error in body["errors"]} == {"prompt", "steps", "width", "seeds"}
    body = problem(api.http.post("/api/v1/jobs", json=OK | {"width": 100, "height": 33, "steps": 99, "count": 60}), 422)
    assert {error["field"] for error in body["errors"]} >= {"width", "height", "steps", "count"}


def test_what_looks_odd_but_is_right_is_taken(api: FarmApi) -> None:
    for body in (
        b'\xef\xbb\xbf{"prompt": "a byte order mark"}',
        b'{"prompt": "\\ud83d\\ude00 a whole pair"}',
        b'{"prompt": "\\u7ea2", "width": 64.0, "guidance": 0, "seed": "042"}',
        b'{"prompt": "' + b"[{" * 100 + b'"}',
        b'{"prompt": "<script>alert(1)</script>", "labels": {"a:b": "c:d"}}',
    ):
        response = api.http.post("/api/v1/jobs", data=body, content_type="application/json; charset=UTF-8")
        assert response.status_code == 202, response.text
        api.http.post(f"/api/v1/jobs/{response.get_json()['id']}/cancel")


def everything_stored(api: FarmApi) -> list[int | None]:
    """How many rows the tables hold that a submit writes to."""
    with api.app_context.store.read() as session:
        return [session.scalar(select(func.count()).select_from(table)) for table in (Job, Event, Idempotency)]
