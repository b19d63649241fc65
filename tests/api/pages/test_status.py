"""The status page: both languages, empty and full, its policy, its cache, and text that stays text."""

import re

import pytest
from sqlalchemy import update

from api.pages.rendering import POLICY
from imagefarm.states import WorkerState
from imagefarm.store.models import SweepState, Worker
from scheduler.queue import workers
from tests.api.pages.conftest import Site
from tests.api.pages.payloads import PAYLOADS, grouped
from tests.api.pages.reading import Reading


@pytest.fixture(autouse=True)
def swept(site: Site) -> None:
    with site.app_context.store.write() as session:
        session.execute(update(SweepState).values(last_at=9e12))


def test_an_empty_farm_says_the_next_step(site: Site) -> None:
    english, chinese = site.page("/").text, site.page("/", "zh-CN,zh;q=0.9,en;q=0.5").text
    assert "Idle" in english
    assert "curl http://localhost/api/v1/jobs" in english
    assert "空闲" in chinese
    assert "还没有图片" in chinese


def test_a_language_chosen_is_kept(site: Site) -> None:
    cookie = site.page("/?lang=zh").headers["Set-Cookie"].partition(";")[0]
    assert cookie == "imagefarm_lang=zh"
    assert '<html lang="zh-Hans">' in site.page("/", Cookie=cookie).text
    assert '<html lang="en">' in site.page("/?lang=en", Cookie=cookie).text


def test_jobs_are_shown_with_state_reason_and_pictures(site: Site) -> None:
    done = site.rendered("a red mug", count=2)
    waiting = site.submit("a blue vase", model="sdxl")
    text = site.page("/").text
    assert done["images"][0]["id"] in text
    assert f'href="/jobs/{waiting["id"]}"' in text
    assert "No worker serves model sdxl now." in text
    assert "目前没有工作节点提供模型 sdxl" in site.page("/", "zh").text


def test_the_word_follows_the_farm(site: Site) -> None:
    def word() -> str:
        found = re.search(r"<h1>.*?</span>(.*?)</h1>", site.page("/").text)
        assert found is not None
        return found[1]

    assert word() == "Waiting"
    workers.set_desired_state(site.app_context.store, "worker_1", WorkerState.DRAINING, by="test")
    assert word() == "Paused"
    with site.app_context.store.write() as session:
        session.execute(update(Worker).values(state=WorkerState.OFFLINE))
    assert word() == "No worker"
    with site.app_context.store.write() as session:
        session.execute(update(Worker).values(state=WorkerState.READY, desired_state=WorkerState.READY))
        session.execute(update(SweepState).values(last_at=1.0))
    assert word() == "Degraded"


def test_a_broken_model_is_shown_with_its_reason(site: Site) -> None:
    workers.report_model(site.app_context.store, "sd-turbo", "invalid", reason="the header is cut short <b>")
    assert "the header is cut short &lt;b&gt;" in site.page("/").text


def test_an_unchanged_page_is_answered_with_304(site: Site) -> None:
    first = site.page("/")
    again = site.page("/", **{"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert again.data == b""
    site.submit("something new")
    assert site.page("/", **{"If-None-Match": first.headers["ETag"]}).status_code == 200


def test_every_page_carries_the_policy(site: Site) -> None:
    for path in ("/", "/nowhere"):
        headers = site.page(path).headers
        assert headers["Content-Security-Policy"] == POLICY
        assert "unsafe" not in POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_errors_are_pages_for_browsers_and_problems_for_programs(site: Site) -> None:
    page = site.page("/nowhere")
    assert (page.status_code, page.mimetype) == (404, "text/html")
    assert site.http.get("/nowhere").mimetype == "application/problem+json"
    assert site.page("/api/v1/nowhere").mimetype == "application/problem+json"


def test_hostile_text_stays_text(site: Site) -> None:
    for number, payload in enumerate(PAYLOADS):
        site.inside.worker(f"w{number}")
        workers.set_desired_state(site.app_context.store, f"w{number}", WorkerState.QUARANTINED, by="test", reason=payload)
    Reading(site.page("/").text).check(*PAYLOADS)
    for group in grouped(6):
        for payload in group:
            workers.report_model(site.app_context.store, "sd15", "invalid", reason=payload)
            site.submit(payload)
        Reading(site.page("/").text).check(*group)
