"""The contact sheet in Chromium: decided by keyboard and by button, only what is near the window in the page, live, finals."""

from typing import Any

import pytest
from sqlalchemy import select

from imagefarm.store.models import Batch, Job, Pick
from tests.api.pages.conftest import Site
from tests.waiting import until

pytestmark = pytest.mark.browser


def batch(site: Site, rows: int, *, rendered: int) -> tuple[str, list[str]]:
    """A batch of `rows` rows, of which the first `rendered` have their images; returns its id and the ids of these images."""
    table = "sku,product\n" + "".join(f"C-{number:04d},a mug\n" for number in range(rows))
    made = site.http.post("/api/v1/batches?template={{ product }}, sheet {{ sku }}", data=table, content_type="text/csv")
    batch_id = made.get_json()["id"]
    with site.app_context.store.read() as session:
        jobs = list(session.scalars(select(Job.id).where(Job.batch_id == batch_id).order_by(Job.id)))
    return batch_id, [site.render(site.claim(job))[0] for job in jobs[:rendered]]


def picks(site: Site, batch_id: str) -> dict[str, int]:
    return {name: number for name, number in site.get(f"/api/v1/batches/{batch_id}")["picks"].items() if number}


def test_pictures_are_decided_by_keyboard_and_taken_back(site: Site, visit: Any) -> None:
    batch_id, images = batch(site, 12, rendered=10)
    window = visit()
    page = window.page
    page.goto(f"{site.url}/batches/{batch_id}")
    page.locator(".vgrid .cell").nth(11).wait_for()
    assert page.locator(".vgrid .cell.pending").count() == 2
    page.locator(".vgrid").focus()
    page.keyboard.press("a")  # the first; the next is the one at hand
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.down("Shift")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.up("Shift")
    page.keyboard.press("a")
    until(lambda: picks(site, batch_id) == {"approved": 4, "rejected": 1, "open": 5}, "five picks")
    with site.app_context.store.read() as session:
        assert session.scalar(select(Pick.pick).join(Job, Job.id == Pick.job_id).order_by(Job.id)) == "approved"
    page.keyboard.press("z")
    until(lambda: picks(site, batch_id) == {"approved": 1, "rejected": 1, "open": 8}, "three taken back")
    page.get_by_role("button", name="Rejected").click()
    page.locator(".vgrid .cell").nth(1).wait_for(state="detached")
    assert page.locator(".vgrid .cell").count() == 1
    page.get_by_role("button", name="To review 8").click()
    page.get_by_role("button", name="Approve the remaining 8").click()
    until(lambda: picks(site, batch_id) == {"approved": 9, "rejected": 1}, "all others approved")
    page.get_by_role("button", name="All 12").click()
    page.locator(".vgrid").focus()
    page.keyboard.press("Home")
    page.keyboard.press(" ")
    page.locator(f"dialog[open] img[src*={images[0]}]").wait_for()
    page.keyboard.press("ArrowRight")
    page.locator(f"dialog[open] img[src*={images[1]}]").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog[open]").wait_for(state="detached")
    window.check_clean(site.url)


def test_one_that_is_rendered_again_shows_in_the_same_place_and_what_is_approved_becomes_final(site: Site, visit: Any) -> None:
    batch_id, images = batch(site, 3, rendered=3)
    window = visit(width=390, scheme="dark")
    page = window.page
    page.goto(f"{site.url}/batches/{batch_id}")
    page.locator(f".vgrid img[src*={images[1]}]").click()
    page.get_by_role("button", name="Redo").click()
    page.locator(".vgrid .cell").nth(1).locator(".glyph").wait_for()
    assert page.locator(".vgrid .cell").count() == 3
    with site.app_context.store.read() as session:
        again = session.scalar(select(Job.id).where(Job.batch_id == batch_id).order_by(Job.id.desc()).limit(1))
    assert again is not None
    fresh = site.render(site.claim(again))[0]
    page.locator(f".vgrid .cell img[src*={fresh}]").wait_for()
    assert page.locator(f".vgrid img[src*={images[1]}]").count() == 0
    page.locator(f".vgrid img[src*={fresh}]").click()
    page.get_by_role("button", name="✓ Approve").click()
    page.locator("#finals").wait_for()
    until(lambda: picks(site, batch_id).get("approved") == 1, "the new one approved")
    assert window.overflow() <= 0
    page.get_by_role("button", name="Render finals").click()
    page.get_by_text("Finals of").wait_for()
    with site.app_context.store.read() as session:
        assert session.scalar(select(Batch.drafts).where(Batch.id == page.url.rpartition("/")[2])) == batch_id
    window.check_clean(site.url)


def test_a_long_sheet_keeps_few_cells_and_loads_small_pictures(site: Site, visit: Any) -> None:
    batch_id, _ = batch(site, 1200, rendered=30)
    window = visit()
    page = window.page
    wanted: list[str] = []
    page.on("request", lambda request: wanted.append(request.url) if "/file" in request.url else None)
    page.goto(f"{site.url}/batches/{batch_id}")
    page.locator(".vgrid[aria-busy=false]").wait_for()
    until(lambda: page.locator("[data-number=all]").inner_text() == "1,200", "all of them")
    assert page.locator(".vgrid .cell").count() < 150
    page.locator(".vgrid").focus()
    page.keyboard.press("End")
    page.get_by_role("option", name="C-1199").wait_for()
    assert page.locator(".vgrid .cell").count() < 150
    assert page.locator("[aria-activedescendant]").get_attribute("aria-activedescendant") == page.locator(
        ".vgrid .cell.at"
    ).get_attribute("id")
    assert wanted
    assert all("?thumb=" in url for url in wanted)
    small = site.http.get(wanted[0].removeprefix(site.url))
    assert (small.content_type, "immutable" in small.headers["Cache-Control"]) == ("image/webp", True)
    window.check_clean(site.url)
