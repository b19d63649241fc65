"""Signing in with a key: the pages and pictures of a farm that asks for keys, out of reach of scripts and other sites."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.http import sign_in_throttle
from api.pages import sign_in
from imagefarm.auth import Scope, create_key, revoke_key
from tests.api.conftest import api_settings, make_api
from tests.api.pages.conftest import Site
from tests.api.pages.reading import Reading

ORIGIN = {"Origin": "http://localhost"}


@pytest.fixture
def closed(redis_url: str, tmp_path: Path) -> Iterator[Site]:
    """A farm that asks for keys."""
    site = Site(make_api(api_settings(tmp_path / "data", f"sqlite:///{tmp_path / 'farm.db'}", redis_url, auth="keys")).app)
    yield site
    site.app_context.close()


def test_without_a_key_every_page_asks_for_one(closed: Site) -> None:
    for path in ("/", "/studio", "/jobs", "/batches", "/lookup", "/admin"):
        response = closed.page(path)
        assert response.status_code == 401
        assert 'name="key"' in response.text
        assert f'name="next" value="{path}"' in response.text
        assert Reading(response.text).wrong == []
    assert "登录" in closed.page("/", "zh").text


def test_a_key_opens_the_pages_until_signed_out_or_revoked(closed: Site) -> None:
    made = create_key(closed.app_context.store, name="reader", scopes=(Scope.READ, Scope.SUBMIT))
    response = closed.http.post("/sign-in", data={"key": made.key, "next": "/jobs"}, headers=ORIGIN)
    assert (response.status_code, response.headers["Location"]) == (303, "/jobs")
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert closed.http.get("/jobs").status_code == 200
    assert closed.http.get("/admin").status_code == 403
    assert closed.http.get("/api/v1/jobs").status_code == 200
    assert closed.http.post("/studio", data={"prompt": "a mug"}, headers={"Origin": "https://example.org"}).status_code == 403
    assert closed.http.post("/studio", data={"prompt": "a mug"}, headers=ORIGIN).status_code == 303
    assert "Sign out" in closed.http.get("/jobs").text
    assert closed.http.post("/sign-out", headers=ORIGIN).status_code == 303
    assert closed.http.get("/jobs").status_code == 401
    closed.http.post("/sign-in", data={"key": made.key}, headers=ORIGIN)
    revoke_key(closed.app_context.store, made.info.id)
    assert closed.http.get("/jobs").status_code == 401


def test_a_wrong_key_is_told_so_and_kept_nowhere(closed: Site) -> None:
    response = closed.http.post("/sign-in", data={"key": "if_wrong_key"}, headers=ORIGIN)
    assert response.status_code == 401
    assert "This key is unknown or revoked." in response.text
    assert "Set-Cookie" not in response.headers


def test_failed_sign_ins_are_logged_with_address_and_name(closed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, str]] = []
    monkeypatch.setattr(sign_in.log, "warning", lambda event, **fields: lines.append({"event": event} | fields))
    monkeypatch.setattr(sign_in_throttle, "MAX_PER_ADDRESS_AND_NAME", 2)
    wrong = {"name": "Ada\n" + "x" * 99, "password": "PASSWORD-SECRET"}
    address = {"REMOTE_ADDR": "192.0.2.7"}
    statuses = [closed.http.post("/sign-in", data=wrong, headers=ORIGIN, environ_base=address).status_code for _ in range(3)]
    closed.http.post("/sign-in", data={"key": "if_abcdefghij_KEY-SECRET"}, headers=ORIGIN, environ_base=address)
    closed.http.post("/sign-in", data={"key": "KEY-SECRET"}, headers=ORIGIN, environ_base=address)
    name = "Ada" + "x" * 61
    assert statuses == [401, 401, 429]
    assert lines == [
        {"event": event, "address": "192.0.2.7", "name": claimed}
        for event, claimed in (
            ("sign_in.failed", name),
            ("sign_in.failed", name),
            ("sign_in.paused", name),
            ("sign_in.failed", "if_abcdefghij"),
            ("sign_in.failed", ""),
        )
    ]


@pytest.mark.parametrize(
    "onward", ["https://example.org", "//example.org", "/\\example.org", "/\\\\x", "javascript:alert(1)", "/a\nb", ""]
)
def test_nobody_is_led_elsewhere(closed: Site, onward: str) -> None:
    made = create_key(closed.app_context.store, name="reader")
    response = closed.http.post("/sign-in", data={"key": made.key, "next": onward}, headers=ORIGIN)
    assert response.headers["Location"] == "/"
