"""The pages on a whole farm: real renders, two readers at once, a worker that dies and a Redis that is lost while they look."""

import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from werkzeug.serving import make_server

from api.app import create_app
from api.context import farm_of
from tests.farm import Farm

pytestmark = pytest.mark.browser
RENDERED_MS = 40_000


class LiveFarm(Farm):
    """A farm whose pages are served on `url`."""

    url = ""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFarm]:
    with LiveFarm(tmp_path_factory.mktemp("whole")) as farm:
        farm.start_worker(wait=False)
        farm.start_scheduler()
        app = create_app(farm.settings)
        server = make_server("127.0.0.1", 0, app, threaded=True)
        farm.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        farm.wait_until(lambda: farm.worker_state() == "ready", 180, "the worker is ready")
        yield farm
        farm_of(app).close()
        server.shutdown()
        thread.join(10)
        server.server_close()


def live(window: Any, address: str) -> Any:
    """The page, opened and connected."""
    window.page.goto(address)
    window.page.locator("#live-mark.on").wait_for()
    return window.page


def long_job(farm: LiveFarm, prompt: str) -> str:
    """A job that renders for some seconds."""
    return farm.submit(prompt, width=128, height=128, steps=50, count=3, preview=True)


def test_from_a_word_to_a_picture_and_what_comes_of_it(farm: LiveFarm, visit: Any) -> None:
    window = visit()
    page = live(window, f"{farm.url}/studio")
    page.keyboard.type("a gold ring")
    page.locator("#suggestion [data-add]").nth(3).wait_for()
    page.keyboard.press("Alt+Enter")
    assert page.input_value("#prompt").startswith("a gold ring, ")
    page.get_by_text("Nothing to add.").wait_for()
    page.keyboard.press("Control+z")
    assert page.input_value("#prompt") == "a gold ring"
    page.fill("#prompt", "a red mug on a white background")
    page.locator("label.pick", has_text="Quick draft").click()
    page.locator("label.pick:has([name=count][value='2'])").click()
    page.keyboard.press("Control+Enter")
    making = page.locator(".making").first
    making.locator(".shot").nth(1).wait_for(timeout=RENDERED_MS)
    making.locator(".see").nth(1).click()
    side = page.locator("#look .side")
    [_, second] = farm.images(making.get_attribute("id"))
    for told in (second.seed, second.sha256, "4 · flow-euler", "w1"):
        side.get_by_text(told).first.wait_for()
    page.keyboard.press("ArrowLeft")
    side.get_by_text(farm.images(second.job_id)[0].sha256).wait_for()
    side.get_by_role("button", name="Same seed at 128×128").click()
    larger = page.locator(".making", has=page.locator("img[width='128']")).first
    larger.locator(".shot").first.wait_for(timeout=RENDERED_MS)
    assert not page.locator("#look").evaluate("dialog => dialog.open")
    [made] = farm.images(larger.get_attribute("id"))
    assert (made.width, made.seed) == (128, farm.images(second.job_id)[0].seed)
    window.check_clean(farm.url)


def test_words_are_saved_in_the_browser_and_added_by_a_press(farm: LiveFarm, visit: Any) -> None:
    window = visit()
    page = live(window, f"{farm.url}/studio?model=sd15")
    page.fill("#negative_prompt", "grain, <b>blur</b>")
    page.get_by_role("button", name="Save these words").click()
    page.reload()
    page.fill("#negative_prompt", "fog, grain")
    page.locator(".snippet button", has_text="<b>blur</b>").click()
    assert page.input_value("#negative_prompt") == "fog, grain, <b>blur</b>"
    page.get_by_role("button", name="Forget: grain, <b>blur</b>").click()
    assert page.locator(".snippet").count() == 1
    window.check_clean(farm.url)


def test_a_picture_is_dropped_to_begin_from(farm: LiveFarm, visit: Any) -> None:
    window = visit()
    page = live(window, f"{farm.url}/studio?model=sd15")
    saved = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(saved, "PNG")
    page.evaluate(
        """bytes => {
            const given = new DataTransfer();
            given.items.add(new File([new Uint8Array(bytes)], "x.png", {type: "image/png"}));
            document.querySelector("#start").dispatchEvent(new DragEvent("drop", {bubbles: true, dataTransfer: given}));
        }""",
        list(saved.getvalue()),
    )
    page.locator("#start .begun img").wait_for()
    assert page.locator("[name=init_image]").input_value().startswith("asset_")
    page.get_by_role("button", name="Take it away").click()
    page.locator("#start input[type=file]").wait_for()
    window.check_clean(farm.url)


def test_a_job_is_watched_to_its_end_and_replayed(farm: LiveFarm, visit: Any) -> None:
    job = long_job(farm, "a blue chair")
    window = visit(width=390, scheme="dark")
    page = live(window, f"{farm.url}/jobs/{job}")
    page.locator(".ghost img").first.wait_for(timeout=RENDERED_MS)
    page.locator(".picture").nth(2).wait_for(timeout=RENDERED_MS)
    assert page.locator(".legend", has_text="steps").count() == 1
    assert window.overflow() <= 0
    page.get_by_role("button", name="Replay these 3 pictures").click()
    page.get_by_text("A replay: every pixel is as it was.").wait_for(timeout=RENDERED_MS)
    window.check_clean(farm.url)


def test_two_readers_at_once_each_in_a_language(farm: LiveFarm, visit: Any) -> None:
    english, chinese = visit(), visit(lang="zh-CN")
    pages = [live(window, f"{farm.url}/studio") for window in (english, chinese)]
    for page, prompt in zip(pages, ("a green bottle", "白色背景上的蓝色椅子"), strict=True):
        page.fill("#prompt", prompt)
    for page in pages:
        page.keyboard.press("Control+Enter")
    for page in pages:
        for prompt in ("a green bottle", "白色背景上的蓝色椅子"):
            page.locator(".making", has_text=prompt).first.locator(".shot").first.wait_for(timeout=RENDERED_MS)
    assert pages[0].input_value("#prompt") == "a green bottle"
    assert pages[1].get_by_role("button", name="开始生成").count() == 1
    english.check_clean(farm.url)
    chinese.check_clean(farm.url)


def test_a_worker_that_dies_is_seen_and_its_job_ends_well(farm: LiveFarm, visit: Any) -> None:
    job = long_job(farm, "a yellow ball")
    window = visit()
    page = live(window, f"{farm.url}/jobs/{job}")
    page.locator(f"[data-job={job}] progress").first.wait_for(timeout=RENDERED_MS)
    farm.wait_until(lambda: farm.job(job).state == "running", 30)
    farm.kill_child()
    page.locator(".picture").nth(2).wait_for(timeout=90_000)
    attempts = page.locator("section", has_text="Attempts")
    assert attempts.locator("th").count() == 2
    attempts.get_by_text("crashed").first.wait_for()
    window.check_clean(farm.url)


def test_a_redis_that_is_lost_and_comes_back_empty_needs_no_reload(farm: LiveFarm, visit: Any) -> None:
    window = visit()
    page = live(window, f"{farm.url}/")
    page.evaluate("window.kept = true")
    farm.kill("redis")
    page.locator("#live-mark:not(.on)").wait_for(timeout=20_000)
    job = farm.submit("made when Redis was away", nudge=False)
    page.locator(f"#{job}").wait_for(timeout=20_000)
    page.get_by_role("heading", name="Degraded").wait_for(timeout=20_000)
    farm.start_redis()
    page.locator("#live-mark.on").wait_for(timeout=30_000)
    page.locator(f"#{job} img").wait_for(timeout=60_000)
    assert page.evaluate("window.kept")
    window.check_clean(farm.url)


def test_submit_list_job_and_cancel_without_javascript(farm: LiveFarm, visit: Any) -> None:
    window = visit(javascript=False, width=390)
    page = window.page
    page.goto(f"{farm.url}/studio")
    page.fill("#prompt", "a purple vase")
    page.get_by_role("button", name="Suggest").click()
    page.locator("button.add").first.click()
    assert page.input_value("#prompt").startswith("a purple vase, ")
    page.locator("label.pick", has_text="128×128").click()
    page.locator("label.pick:has([name=count][value='16'])").click()
    page.locator("summary", has_text="Steps").click()
    page.fill("#steps", "50")
    page.get_by_role("button", name="Make it").click()
    making = page.locator(".making").first
    job = making.get_attribute("id")
    page.goto(f"{farm.url}/jobs?text=purple")
    page.locator(f"#{job} .line").first.click()
    page.get_by_role("button", name="Cancel these 16 pictures").click()
    page.get_by_role("button", name="Render these 16 again").wait_for()
    assert farm.wait_for_jobs([job]) == {job: "cancelled"}
    window.check_clean(farm.url)


def test_a_picture_of_the_gallery_is_traced(farm: LiveFarm, visit: Any) -> None:
    job = farm.submit("a traced lamp", format="jpeg")
    farm.wait_for_jobs([job])
    data = farm.outputs.read(farm.images(job)[0].storage_key)
    window = visit()
    window.page.goto(f"{farm.url}/trace")
    window.page.set_input_files("input[type=file]", {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": data})
    window.page.locator(f"#{job}").wait_for()
    window.check_clean(farm.url)
