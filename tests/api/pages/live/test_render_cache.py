"""One rendering for all who follow a page: shared for a moment, by nobody who may not, and never in place of one's own."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.http.stream_access import StreamAccess
from api.live.event_fanout import BACK
from api.pages.live import render_cache
from api.pages.live.render_cache import MAX_ENTRIES, RENDER_CACHE_S, Page, RenderCache
from api.v1.events import _follow_all
from imagefarm.auth import OPEN_CALLER, Scope, create_key
from imagefarm.errors import NotFound
from imagefarm.store.models import Tenant
from tests.api.conftest import api_settings, make_api
from tests.api.pages.conftest import Site

FOLLOWS = {"HX-Request": "true"}


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached page stays valid for the whole test."""
    monkeypatch.setattr(render_cache, "RENDER_CACHE_S", 600.0)


@pytest.fixture
def closed(redis_url: str, tmp_path: Path) -> Iterator[Site]:
    """A farm that asks for keys."""
    site = Site(make_api(api_settings(tmp_path / "data", f"sqlite:///{tmp_path / 'farm.db'}", redis_url, auth="keys")).app)
    yield site
    site.app_context.close()


def page_of(text: str) -> Page:
    return 200, [], text.encode()


@pytest.mark.usefixtures("long")
def test_followers_share_and_whoever_opens_the_page_does_not(site: Site) -> None:
    before = site.page("/jobs", **FOLLOWS)
    site.submit("a mug that came later")
    assert site.page("/jobs", **FOLLOWS).data == before.data
    assert "a mug that came later" in site.page("/jobs").text
    assert "a mug that came later" in site.page("/jobs?model=demo", **FOLLOWS).text
    assert '<html lang="zh-Hans">' in site.page("/jobs", "zh", **FOLLOWS).text
    assert site.page("/jobs", **FOLLOWS | {"If-None-Match": before.headers["ETag"]}).status_code == 304
    assert site.page("/jobs", **FOLLOWS | {"If-None-Match": 'W/"other"'}).data == before.data


@pytest.mark.usefixtures("long")
def test_one_who_has_the_page_leaves_it_whole_to_the_others(site: Site) -> None:
    etag = {"If-None-Match": site.page("/?of=etag").headers["ETag"]}
    assert site.page("/?of=etag", **FOLLOWS | etag).status_code == 304
    assert "</html>" in site.page("/?of=etag", **FOLLOWS).text


def test_a_change_shows_after_the_time_that_the_script_waits(site: Site) -> None:
    first = site.page("/", **FOLLOWS)
    assert f'data-render-cache-ms="{1000 * RENDER_CACHE_S:.0f}"' in first.text
    site.submit("a change that shows")
    time.sleep(RENDER_CACHE_S)
    assert "a change that shows" in site.page("/", **FOLLOWS).text


@pytest.mark.usefixtures("long")
def test_another_tenant_or_scope_never_gets_it(closed: Site) -> None:
    with closed.app_context.store.write() as session:
        session.add(Tenant(id="tenant_other", name="other", weight=1.0, limits={}, created_at=0.0))
    keys: dict[str, Any] = {
        "ours": create_key(closed.app_context.store, name="ours", scopes=(Scope.READ, Scope.SUBMIT)),
        "theirs": create_key(closed.app_context.store, name="theirs", scopes=(Scope.READ, Scope.SUBMIT), tenant="other"),
        "submits": create_key(closed.app_context.store, name="submits", scopes=(Scope.SUBMIT,)),
    }
    bearer = {name: {"Authorization": f"Bearer {made.key}"} for name, made in keys.items()}
    closed.http.post("/api/v1/jobs", json={"prompt": "our secret mug"}, headers=bearer["ours"])
    for path in ("/", "/jobs"):
        assert "our secret mug" in closed.page(path, **FOLLOWS | bearer["ours"]).text
        theirs = closed.page(path, **FOLLOWS | bearer["theirs"])
        assert theirs.status_code == 200
        assert "our secret mug" not in theirs.text
        assert closed.page(path, **FOLLOWS | bearer["submits"]).status_code == 403
        assert closed.page(path, **FOLLOWS).status_code == 401


def test_it_is_made_once_while_others_wait() -> None:
    cache, made, got = RenderCache(), [], []
    begun, go_on = threading.Event(), threading.Event()

    def make() -> Page:
        made.append(1)
        begun.set()
        go_on.wait(5)
        return page_of("once")

    threads = [threading.Thread(target=lambda: got.append(cache.get("a", make))) for _ in range(8)]
    threads[0].start()
    assert begun.wait(5)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(5)
    assert (len(made), got) == (1, [page_of("once")] * 8)


def test_an_error_is_kept_no_longer_than_a_page() -> None:
    cache = RenderCache()

    def fail() -> Page:
        raise NotFound("no such job")

    with pytest.raises(NotFound):
        cache.get("a", fail)
    time.sleep(RENDER_CACHE_S)
    assert cache.get("a", lambda: page_of("there now")) == page_of("there now")


def test_no_more_are_kept_than_are_bounded() -> None:
    cache = RenderCache()
    for number in range(MAX_ENTRIES + 50):
        cache.get(number, lambda: page_of("x"))
    assert len(cache._cached) == MAX_ENTRIES


def test_a_page_is_told_at_once_when_many_more_came(site: Site) -> None:
    events = site.app_context.events
    mine = events.subscribe(lambda _: False)
    with site.app.test_request_context():
        text = _follow_all(events, mine, StreamAccess(OPEN_CALLER))
    assert '"ms": 200' in next(text)
    others = [events.subscribe(lambda _: False) for _ in range(99)]
    mine.offer(BACK)
    assert '"ms": 600' in next(text)
    for one in (mine, *others):
        events.unsubscribe(one)
