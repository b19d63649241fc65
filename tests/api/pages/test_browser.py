"""The pages in Chromium: live, clean, from this host alone, narrow without sideways scroll, complete without JavaScript."""

import time
from typing import Any

import pytest

from api.pages.live import page_push
from imagefarm.redis import JobProgress, publish_progress
from tests.api.pages.conftest import Site

pytestmark = pytest.mark.browser


def test_a_change_is_on_the_page_within_a_second(site: Site, visit: Any) -> None:
    window = visit()
    window.page.goto(site.url)
    window.page.locator("#live-mark.on").wait_for()
    window.page.evaluate("window.kept = true")
    site.beat()
    job = site.submit("a red mug on a white background")
    began = time.monotonic()
    window.page.get_by_text("a red mug on a white background").first.wait_for()
    seen_submitted = time.monotonic() - began
    claimed = site.claim(job["id"])
    bar = window.page.locator(f"[data-job={job['id']}]").first
    bar.wait_for()
    progress = JobProgress(job["id"], "tenant_default", {"step": 3, "steps": 8, "attempt": 1})
    publish_progress(site.app_context.redis, site.app_context.settings.redis_prefix, [progress])
    window.page.locator(f"[data-job={job['id']}]", has_text="step 3 of 8").first.wait_for()
    images = site.render(claimed)
    began = time.monotonic()
    window.page.locator(f"img[src*={images[0]}]").wait_for()
    seen_finished = time.monotonic() - began
    assert window.page.evaluate("window.kept")
    assert seen_submitted < 1.0
    assert seen_finished < 1.0
    window.check_clean(site.url)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scroll(site: Site, visit: Any, scheme: str) -> None:
    site.rendered("averyverylongwordwithoutanyspacesinitthatgoesonandonandonandonandonandonandon" * 2)
    site.submit("x" * 300, model="sdxl")
    window = visit(width=390, scheme=scheme)
    window.page.goto(site.url)
    window.page.locator("#live-mark.on").wait_for()
    assert window.overflow() <= 0
    window.check_clean(site.url)


def test_the_page_is_complete_without_javascript(site: Site, visit: Any) -> None:
    done = site.rendered("a green bottle")
    window = visit(javascript=False)
    window.page.goto(site.url)
    assert window.page.locator(f"a[href='/jobs/{done['id']}']").count() >= 1
    assert window.page.locator("time").first.inner_text().endswith("UTC")
    window.check_clean(site.url)


def test_polling_takes_over_when_every_stream_is_taken(site: Site, visit: Any) -> None:
    max_streams, site.app_context.events.max_streams = site.app_context.events.max_streams, 0
    try:
        window = visit()
        window.page.goto(site.url)
        window.page.wait_for_timeout(500)
        job = site.submit("found by polling")
        window.page.locator(f"#{job['id']}").wait_for()
    finally:
        site.app_context.events.max_streams = max_streams
    window.page.locator("#live-mark.on").wait_for()


def test_a_page_that_hears_nothing_does_not_call_itself_live(site: Site, visit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_push, "BEAT_S", 600.0)
    window = visit()
    window.page.goto(site.url)
    window.page.locator("#live-mark.on").wait_for()
    window.page.locator("#live-mark:not(.on)", has_text="polling").wait_for(timeout=15_000)
    monkeypatch.undo()
    window.page.locator("#live-mark.on").wait_for(timeout=15_000)
    window.page.wait_for_timeout(6000)
    assert window.page.locator("#live-mark.on").count() == 1
    window.check_clean(site.url)


def test_a_hidden_page_holds_no_stream(site: Site, visit: Any) -> None:
    hide = """hidden => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    window = visit()
    window.page.goto(site.url)
    window.page.locator("#live-mark.on").wait_for()
    before = site.app_context.events.streams
    window.page.evaluate(hide, True)
    window.page.locator("#live-mark:not(.on)").wait_for()
    for _ in range(200):
        if site.app_context.events.streams < before:
            break
        window.page.wait_for_timeout(100)
    assert site.app_context.events.streams < before
    job = site.submit("made while nobody looked")
    window.page.evaluate(hide, False)
    window.page.locator(f"#{job['id']}").wait_for()
    window.page.locator("#live-mark.on").wait_for(timeout=15_000)
    window.check_clean(site.url)


def test_new_jobs_wait_behind_a_line_and_are_shown_on_demand(site: Site, visit: Any) -> None:
    old = site.submit("listed before")["id"]
    window = visit()
    window.page.goto(f"{site.url}/jobs?text=listed")
    window.page.locator("#live-mark.on").wait_for()
    new = site.submit("listed after")["id"]
    line = window.page.get_by_role("status").get_by_text("1 new job")
    line.wait_for()
    assert window.page.locator(f"#{new}").count() == 0
    line.click()
    window.page.locator(f"#{new}").wait_for()
    assert window.page.locator(f"#{old}").count() == 1
    window.check_clean(site.url)


def test_a_job_is_cancelled_without_javascript(site: Site, visit: Any) -> None:
    job = site.submit("cancelled by hand", count=2)["id"]
    window = visit(javascript=False)
    window.page.goto(f"{site.url}/jobs/{job}")
    window.page.get_by_role("button", name="Cancel 2 pictures").click()
    window.page.get_by_role("button", name="Render 2 pictures again").wait_for()
    assert window.page.url == f"{site.url}/jobs/{job}"
    window.check_clean(site.url)


def test_a_job_page_follows_its_job(site: Site, visit: Any) -> None:
    job = site.submit("watched closely")["id"]
    window = visit(width=390, scheme="dark")
    window.page.goto(f"{site.url}/jobs/{job}")
    window.page.locator("#live-mark.on").wait_for()
    images = site.render(site.claim(job))
    window.page.locator(f"img[src*={images[0]}]").wait_for()
    window.page.locator("summary", has_text="Audit record").click()
    site.submit("something else")
    window.page.wait_for_timeout(600)
    assert window.page.locator(".picture details[open]").count() == 1
    assert window.overflow() <= 0
    window.check_clean(site.url)


def test_a_picture_is_made_in_the_studio_without_reload(site: Site, visit: Any) -> None:
    window = visit()
    window.page.goto(f"{site.url}/studio")
    window.page.locator("#live-mark.on").wait_for()
    window.page.evaluate("window.kept = true")
    window.page.fill("#prompt", "made in the studio")
    window.page.locator("label.pick", has_text="2").first.click()
    window.page.keyboard.press("Control+Enter")
    making = window.page.locator(".making", has_text="made in the studio").first
    making.wait_for()
    job = making.get_attribute("id")
    for image in site.render(site.claim(job)):
        making.locator(f"img[src*={image}]").wait_for()
    assert window.page.evaluate("window.kept")
    assert window.page.input_value("#prompt") == "made in the studio"
    window.check_clean(site.url)


def test_older_pictures_come_below_and_new_ones_leave_no_gap(site: Site, visit: Any) -> None:
    jobs = [site.submit(f"an old mug no. {number}.")["id"] for number in range(60)]
    window = visit()
    window.page.goto(f"{site.url}/studio")
    window.page.locator("#live-mark.on").wait_for()
    for count in (24, 48):
        window.page.locator("#gallery nav a[rel=next]").last.click()
        window.page.locator("#older .making").nth(count - 1).wait_for()
    newer = site.submit("one that came after")["id"]
    window.page.locator(f"#live #{newer}").wait_for()
    window.page.locator("#live nav").wait_for(state="detached")
    shown = window.page.evaluate("[...document.querySelectorAll('#gallery .making')].map((one) => one.id)")
    assert shown[:61] == [newer, *jobs[::-1]]
    assert len(set(shown)) == len(shown)
    window.check_clean(site.url)
    bare = visit(javascript=False)
    bare.page.goto(f"{site.url}/studio")
    bare.page.get_by_role("link", name="Older pictures").click()
    bare.page.locator(f"#live #{jobs[30]}").wait_for()
    bare.page.get_by_role("link", name="newest").click()
    bare.page.locator(f"#live #{newer}").wait_for()


def test_the_studio_works_without_javascript(site: Site, visit: Any) -> None:
    window = visit(javascript=False, width=390)
    window.page.goto(f"{site.url}/studio")
    window.page.fill("#prompt", "made by hand")
    window.page.get_by_role("button", name="Generate").click()
    window.page.locator(".making", has_text="made by hand").first.wait_for()
    assert window.overflow() <= 0
    window.check_clean(site.url)


def test_a_batch_fills_its_contact_sheet_while_one_looks(site: Site, visit: Any) -> None:
    rows = "sku,product\n" + "".join(f"W-{number},a mug\n" for number in range(4))
    window = visit(width=390)
    window.page.goto(f"{site.url}/batches")
    window.page.fill("[name=template]", "{{ product }}, watched")
    window.page.get_by_text("Or paste rows").click()
    window.page.fill("[name=table]", rows)
    window.page.get_by_role("button", name="Preview cost").click()
    window.page.get_by_role("button", name="Render 4 pictures").click()
    window.page.locator(".cell.pending").nth(3).wait_for()
    window.page.locator("#live-mark.on").wait_for()
    jobs = site.get(f"/api/v1/jobs?batch={window.page.url.rpartition('/')[2]}")["items"]
    images = site.render(site.claim(jobs[-1]["id"]))
    window.page.locator(f".cell img[src*={images[0]}]").wait_for()
    assert window.overflow() <= 0
    window.check_clean(site.url)


def test_the_admin_pages_are_live_and_narrow(site: Site, visit: Any) -> None:
    site.rendered("for the chart")
    window = visit(width=390, scheme="dark")
    window.page.goto(f"{site.url}/admin")
    window.page.locator("#live-mark.on").wait_for()
    window.page.locator(".plot canvas").nth(3).wait_for()
    site.submit("seen on the admin pages")
    window.page.locator(".events li", has_text="Submitted").first.wait_for()
    assert window.page.locator(".plot canvas").count() == 4
    assert window.overflow() <= 0
    window.check_clean(site.url)


def test_a_chosen_picture_is_traced_at_once(site: Site, visit: Any) -> None:
    job = site.rendered("looked up in the browser")
    data = site.http.get(job["images"][0]["url"]).data
    window = visit()
    window.page.goto(f"{site.url}/lookup")
    window.page.set_input_files("input[type=file]", {"name": "x.png", "mimeType": "image/png", "buffer": data})
    window.page.get_by_text("looked up in the browser").first.wait_for()
    window.check_clean(site.url)
