"""The stream that an open page follows: one rendering for all who may see the same, the newest only, nobody else's."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.pages.live import page_push
from api.pages.live.page_push import PagePublisher, live_part
from api.pages.live.stream import KEY
from imagefarm.auth import Scope, create_key, revoke_key
from imagefarm.redis import JobProgress, publish_progress
from imagefarm.store.models import Tenant
from tests.api.conftest import api_settings, make_api
from tests.api.pages.conftest import Site


@pytest.fixture
def closed(redis_url: str, tmp_path: Path) -> Iterator[Site]:
    """A farm that asks for keys."""
    site = Site(make_api(api_settings(tmp_path / "data", f"sqlite:///{tmp_path / 'farm.db'}", redis_url, auth="keys")).app)
    yield site
    site.app_context.close()


def open_stream(site: Site, at: str, lang: str = "en", **headers: str) -> TestResponse:
    return site.app.test_client(use_cookies=False).get(
        "/live", query_string={"at": at}, headers={"Accept-Language": lang} | headers, buffered=False
    )


def until(stream: TestResponse, word: str, *, forbidden: str = "\0") -> str:
    """What came, once the word is in it."""
    for chunk in stream.response:
        text = str(chunk, "utf-8")
        assert forbidden not in text
        if word in text:
            return text
    raise AssertionError(f"the stream ended without {word}")


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def publisher_of(site: Site) -> PagePublisher:
    publisher: PagePublisher = site.app.extensions[KEY]
    return publisher


def test_all_readers_of_a_page_get_one_rendering(site: Site) -> None:
    streams = [open_stream(site, "/jobs") for _ in range(20)]
    for stream in streams:
        until(stream, "event: page")
    publisher = publisher_of(site)
    eventually(lambda: publisher.pace_s < 0.25)
    before = publisher.renderings
    job = site.submit("a mug for all of them")
    for stream in streams:
        assert f'id="{job["id"]}"' in until(stream, "a mug for all of them")
    assert publisher.renderings - before < 10
    chinese = open_stream(site, "/jobs", "zh-CN")
    assert "<title>任务" in until(chinese, "a mug for all of them")
    for stream in (*streams, chinese):
        stream.close()
    assert (publisher._pages, site.app_context.events.streams) == ({}, 0)


def test_nobody_gets_another_tenants_page(closed: Site) -> None:
    with closed.app_context.store.write() as session:
        session.add(Tenant(id="tenant_other", name="other", weight=1.0, limits={}, created_at=0.0))
    both = (Scope.READ, Scope.SUBMIT)
    ours = {"Authorization": f"Bearer {create_key(closed.app_context.store, name='ours', scopes=both).key}"}
    theirs = {"Authorization": f"Bearer {create_key(closed.app_context.store, name='theirs', scopes=both, tenant='other').key}"}
    streams = [open_stream(closed, "/jobs", **ours), open_stream(closed, "/jobs", **theirs)]
    for stream in streams:
        until(stream, "event: page")
    for key, prompt in ((ours, "our secret mug"), (theirs, "their secret mug")):
        assert closed.http.post("/api/v1/jobs", json={"prompt": prompt}, headers=key).status_code == 202
    until(streams[0], "our secret mug", forbidden="their secret")
    until(streams[1], "their secret mug", forbidden="our secret")
    for stream in streams:
        stream.close()
    assert open_stream(closed, "/jobs").status_code == 401


def test_a_revoked_key_ends_its_stream(closed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_push, "CHECK_S", 0.0)
    monkeypatch.setattr(page_push, "BEAT_S", 0.05)
    made = create_key(closed.app_context.store, name="short", scopes=(Scope.READ,))
    stream = open_stream(closed, "/", Authorization=f"Bearer {made.key}")
    until(stream, "event: page")
    revoke_key(closed.app_context.store, made.info.id)
    for _ in stream.response:
        pass  # it ends


def test_a_stream_says_that_it_is_alive_until_its_reader_leaves(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_push, "BEAT_S", 0.05)
    stream = open_stream(site, "/jobs")
    until(stream, "event: page")
    for _ in range(3):
        until(stream, "event: beat")
    stream.close()
    assert (publisher_of(site)._pages, site.app_context.events.streams) == ({}, 0)


@pytest.mark.parametrize("at", ["//elsewhere.org/jobs", "https://elsewhere.org/", "/api/v1/jobs", "/live", "/nothing", "jobs"])
def test_only_pages_of_the_farm_are_published(site: Site, at: str) -> None:
    answer = site.app.test_client().get("/live", query_string={"at": at})
    assert answer.status_code == 422
    assert answer.json["errors"][0]["field"] == "at"
    assert site.app_context.events.streams == 0


def test_a_jobs_page_hears_of_its_job_and_of_its_steps(site: Site) -> None:
    mine, other = site.submit("a mug that is watched"), site.submit("a mug that is not")
    stream = open_stream(site, f"/jobs/{mine['id']}")
    until(stream, "a mug that is watched")
    for job, step in ((other["id"], 5), (mine["id"], 3)):
        progress = {"step": step, "steps": 8, "attempt": 1}
        publish_progress(
            site.app_context.redis, site.app_context.settings.redis_prefix, [JobProgress(job, "tenant_default", progress)]
        )
    assert '"step": 3' in until(stream, "job.progress", forbidden=other["id"])
    site.http.post(f"/api/v1/jobs/{mine['id']}/cancel")
    assert "s-cancelled" in until(stream, "event: page")
    stream.close()


def test_a_page_that_cannot_be_rendered_for_its_readers_is_one_to_fetch(site: Site) -> None:
    stream = open_stream(site, "/jobs/job_00000000000000000000000000")
    until(stream, "event: changed")
    stream.close()


def test_what_somebody_wrote_stays_one_message(site: Site) -> None:
    site.submit('line\r\n\r\nevent: evil\ndata: </main><div id="live">')
    stream = open_stream(site, "/jobs")
    text = until(stream, "event: page")
    assert all(line.startswith("data: ") for line in text.rstrip("\n").split("\n")[1:])
    assert "&lt;/main&gt;" in text
    stream.close()
    assert live_part("<title>x</title><p>nothing that changes</p>") == ""


def test_a_farm_that_closes_ends_the_streams(closed: Site) -> None:
    made: Any = create_key(closed.app_context.store, name="reads", scopes=(Scope.READ,))
    stream = open_stream(closed, "/", Authorization=f"Bearer {made.key}")
    until(stream, "event: page")
    closed.app_context.close()
    for _ in stream.response:
        pass
    eventually(lambda: not publisher_of(closed)._thread.is_alive())  # type: ignore[union-attr]
