"""The pages on a whole farm: real renders, two readers at once, a worker that dies and a Redis that is lost while they look."""

import io
import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image, ImageChops, ImageDraw
from sqlalchemy import select
from werkzeug.serving import make_server

from api.app import create_app
from api.http.context import app_context_of
from imagefarm.store.models import Job
from tests.farm import Farm
from tests.receiver import receiving
from tests.waiting import until

pytestmark = pytest.mark.browser
RENDERED_MS = 40_000


class LiveFarm(Farm):
    """A farm whose pages are served on `url`."""

    url = ""


@pytest.fixture(scope="module")
def farm(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFarm]:
    with LiveFarm(tmp_path_factory.mktemp("whole"), lease_s=10.0, allow_private_urls=True) as farm:
        farm.start_worker(wait=False)
        farm.start_scheduler()
        app = create_app(farm.settings)
        server = make_server("127.0.0.1", 0, app, threaded=True)
        farm.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        farm.wait_until(lambda: farm.worker_state() == "ready", 180, "the worker is ready")
        yield farm
        app_context_of(app).close()
        server.shutdown()
        thread.join(10)
        server.server_close()


def live(window: Any, address: str) -> Any:
    """The page, opened and connected."""
    window.page.goto(address)
    window.page.locator("#live-mark.on").wait_for()
    return window.page


def png(picture: Image.Image) -> bytes:
    saved = io.BytesIO()
    picture.save(saved, "PNG")
    return saved.getvalue()


def drop(page: Any, data: bytes) -> None:
    """Drop a picture on the studio's form and wait until it is shown there."""
    page.evaluate(
        """bytes => {
            const given = new DataTransfer();
            given.items.add(new File([new Uint8Array(bytes)], "x.png", {type: "image/png"}));
            document.querySelector("#init-image").dispatchEvent(new DragEvent("drop", {bubbles: true, dataTransfer: given}));
        }""",
        list(data),
    )
    page.locator("#init-image .begun img").wait_for()


def mug_on_white() -> Image.Image:
    """A photo of a mug, its label as white as the background."""
    photo = Image.new("RGB", (100, 90), "white")
    draw = ImageDraw.Draw(photo)
    draw.ellipse((54, 26, 86, 64), outline=(190, 44, 52), width=8)
    draw.rounded_rectangle((16, 12, 66, 78), radius=6, fill=(190, 44, 52))
    draw.rectangle((20, 20, 28, 70), fill=(220, 92, 96))
    draw.rectangle((34, 34, 56, 52), fill="white")
    return photo


def long_job(farm: LiveFarm, prompt: str) -> str:
    """A job that renders for some seconds."""
    return farm.submit(prompt, width=128, height=128, steps=50, count=2, preview=True)


def test_from_a_word_to_a_picture_and_what_comes_of_it(farm: LiveFarm, visit: Any) -> None:
    window = visit()
    page = live(window, f"{farm.url}/studio")
    page.keyboard.type("a gold ring")
    page.locator("#suggestion [data-add]").nth(3).wait_for()
    page.keyboard.press("Alt+Enter")
    assert page.input_value("#prompt").startswith("a gold ring, ")
    page.get_by_text("Your prompt covers").wait_for()
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
    side.get_by_role("button", name="Larger, same seed (128×128)").click()
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
    page.get_by_role("button", name="Save negative prompt").click()
    page.reload()
    page.fill("#negative_prompt", "fog, grain")
    page.locator(".saved-negative button", has_text="<b>blur</b>").click()
    assert page.input_value("#negative_prompt") == "fog, grain, <b>blur</b>"
    page.get_by_role("button", name="Delete: grain, <b>blur</b>").click()
    assert page.locator(".saved-negative").count() == 1
    window.check_clean(farm.url)


def test_a_picture_is_dropped_to_begin_from(farm: LiveFarm, visit: Any) -> None:
    window = visit()
    page = live(window, f"{farm.url}/studio?model=sd15")
    drop(page, png(Image.new("RGB", (64, 64), "teal")))
    assert page.locator("[name=init_image]").input_value().startswith("asset_")
    page.get_by_role("button", name="Remove").click()
    page.locator("#init-image input[type=file]").wait_for()
    window.check_clean(farm.url)


def test_a_product_is_dropped_cut_out_and_kept_pixel_for_pixel(farm: LiveFarm, visit: Any) -> None:
    photo = mug_on_white()
    window = visit()
    page = live(window, f"{farm.url}/studio")
    drop(page, png(photo))
    assert not page.locator("#cut").is_visible()
    page.locator("label.pick", has_text="Keep the product").click()
    page.select_option("#cut", "white")
    page.fill("#shadow", "0.5")
    page.fill("#scale", "1")
    page.locator("label.pick", has_text="128×128").click()
    page.fill("#prompt", "a wooden table, blue background")
    page.keyboard.press("Control+Enter")
    making = page.locator(".making", has_text="a wooden table").first
    making.locator(".shot").first.wait_for(timeout=RENDERED_MS)
    assert making.locator(".from img").evaluate("img => img.complete && img.naturalWidth") == photo.width
    making.locator(".copy summary").click()
    making.get_by_text(re.compile("--subject asset_.* --subject-mask white --subject-place 0.5,0.5,1.0 --shadow 0.5")).wait_for()
    [image] = farm.images(making.get_attribute("id"))
    left, top, width, height = image.audit["subject"]["box"]
    with Image.open(io.BytesIO(farm.outputs.read(image.storage_key))) as file:
        made = file.convert("RGB")
    mug = ImageChops.difference(photo, Image.new("RGB", photo.size, "white")).convert("L").point(lambda value: value and 255)
    ImageDraw.floodfill(mug, (45, 43), 255)  # the label
    photo_box = mug.getbbox()
    assert photo_box is not None
    assert (width, height) == (photo_box[2] - photo_box[0], photo_box[3] - photo_box[1])
    shown = made.crop((left, top, left + width, top + height))
    kept = Image.composite(shown, photo.crop(photo_box), mug.crop(photo_box))
    assert ImageChops.difference(kept, photo.crop(photo_box)).getbbox() is None
    assert ImageChops.difference(shown, photo.crop(photo_box)).getbbox() is not None  # the surroundings are generated
    page.reload()
    page.locator("#live-mark.on").wait_for()
    page.locator("#" + str(making.get_attribute("id"))).get_by_role("link", name="Reuse").click()
    assert page.locator("[name=init_image_as][value=product]").is_checked()
    assert (page.input_value("#cut"), page.input_value("#shadow"), page.input_value("#scale")) == ("white", "0.5", "1")
    window.check_clean(farm.url)


def test_a_job_is_watched_to_its_end_and_replayed(farm: LiveFarm, visit: Any) -> None:
    job = long_job(farm, "a blue chair")
    window = visit(width=390, scheme="dark")
    page = live(window, f"{farm.url}/jobs/{job}")
    page.locator(".ghost img").first.wait_for(timeout=RENDERED_MS)
    page.locator(".picture").nth(1).wait_for(timeout=RENDERED_MS)
    assert page.locator(".legend", has_text="Denoising").count() == 1
    assert window.overflow() <= 0
    page.get_by_role("button", name="Replay 2 pictures").click()
    page.get_by_text("Replay: every pixel is identical.").wait_for(timeout=RENDERED_MS)
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
    assert pages[1].get_by_role("button", name="生成").count() == 1
    english.check_clean(farm.url)
    chinese.check_clean(farm.url)


def batch_of(farm: LiveFarm, name: str, rows: int, **defaults: Any) -> str:
    """A batch that was submitted over the API."""
    made = httpx.post(
        f"{farm.url}/api/v1/batches",
        json={
            "name": name,
            "template": "a {{ colour }} ball",
            "defaults": defaults,
            "rows": [{"colour": f"yellow {number}"} for number in range(rows)],
        },
        trust_env=False,
        timeout=30,
    )
    made.raise_for_status()
    return str(made.json()["id"])


def kept(*pages: Any) -> list[bool]:
    """Whether each page is still the one that was opened."""
    return [page.evaluate("window.kept === true") for page in pages]


def test_a_table_becomes_drafts_that_are_looked_through_and_finals(farm: LiveFarm, visit: Any) -> None:
    window = visit()
    page = live(window, f"{farm.url}/batches")
    rows = "Artikel,product\n" + "".join(f"J-{number},a red mug no. {number}\n" for number in range(4))
    page.set_input_files("#b-file", {"name": "mugs.csv", "mimeType": "text/csv", "buffer": rows.encode()})
    page.fill("#b-template", "{{ product }} on a table")
    page.get_by_text("a red mug no. 2 on a table").wait_for()
    page.locator("#columns summary").click()
    page.locator("[name='map.Artikel']").select_option("sku")
    page.get_by_text("a red mug no. 2 on a table").wait_for()
    page.fill("[name=canary]", "1")
    page.get_by_role("button", name="Preview cost").click()
    page.get_by_role("button", name="Render 4 pictures").click()
    page.locator(".vgrid .cell img").first.wait_for(timeout=RENDERED_MS)
    page.get_by_role("button", name="Start the other 3 jobs").click(timeout=RENDERED_MS)
    page.locator(".vgrid .cell img").nth(3).wait_for(timeout=RENDERED_MS)
    page.locator(".vgrid .cell", has_text="J-3").wait_for()
    page.locator(".vgrid").focus()
    page.keyboard.press("Home")
    for key in "aax":
        page.keyboard.press(key)
    page.locator("[data-number=approved]", has_text="2").first.wait_for()
    page.locator("[data-number=rejected]", has_text="1").wait_for()
    page.locator("#finals [name=width]").fill("128")
    page.locator("#finals [name=height]").fill("128")
    page.get_by_role("button", name="Render finals").click()
    page.get_by_text("Finals of").wait_for()
    page.locator(".vgrid .cell img").nth(1).wait_for(timeout=RENDERED_MS)
    page.locator(".chip", has_text="done").first.wait_for(timeout=RENDERED_MS)
    with farm.store.read() as session:
        finals = session.scalars(select(Job).where(Job.batch_id == page.url.rpartition("/")[2])).all()
    assert sorted((job.labels["sku"], job.recipe["width"], job.state) for job in finals) == [
        ("J-0", 128, "succeeded"),
        ("J-1", 128, "succeeded"),
    ]
    window.check_clean(farm.url)


def test_the_desk_sends_commands_that_are_run(farm: LiveFarm, visit: Any) -> None:
    window = visit(width=390, scheme="dark")
    with receiving() as receiver:
        page = live(window, f"{farm.url}/admin/webhooks")
        page.fill("[name=url]", receiver.url)
        page.locator("[name=kind][value='job.succeeded']").check()
        page.get_by_role("button", name="Create webhook").click()
        page.get_by_text("Webhook created.").wait_for()
        page = live(window, f"{farm.url}/admin/workers")
        page.get_by_role("button", name="Drain").click()
        machine = page.locator(".machines li", has_text="w1").first
        machine.locator(".chip", has_text="Draining").wait_for()
        job = farm.submit("waits for the admin pages")
        machine.get_by_role("button", name="Resume").click()
        farm.issue("demo")
        assert farm.wait_for_jobs([job]) == {job: "succeeded"}
        until(lambda: any(job.encode() in body for _, body in receiver.got), "the webhook gets a message")
        page = live(window, f"{farm.url}/admin/webhooks")
        page.locator("tr", has_text="delivered").first.get_by_role("button", name="Send again").click()
        until(lambda: sum(job.encode() in body for _, body in receiver.got) > 1, "the message is sent again")
    page.goto(f"{farm.url}/admin/keys")
    page.fill("[name=name]", "admin test")
    page.get_by_role("button", name="Create key").click()
    first = page.locator(".once code").first.inner_text()
    page.get_by_role("button", name="Replace key admin test").click()
    page.locator(".once code", has_text="if_").wait_for()
    assert page.locator(".once code").first.inner_text() not in {"", first}
    page.goto(f"{farm.url}/admin/audit?subject={job}")
    page.locator(".events li", has_text="job.succeeded").wait_for()
    page.get_by_role("button", name=re.compile("^Verify")).click()
    page.get_by_text("Verified:").wait_for()
    assert window.overflow() <= 0
    window.check_clean(farm.url)


def test_a_worker_that_dies_is_seen_and_its_jobs_end_well(farm: LiveFarm, visit: Any) -> None:
    job = long_job(farm, "a yellow ball")
    batch = batch_of(farm, "While a worker dies", 3, width=128, height=128, steps=30)
    window, other, admin = visit(), visit(), visit()
    page = live(window, f"{farm.url}/jobs/{job}")
    sheet = live(other, f"{farm.url}/batches/{batch}")
    machines = live(admin, f"{farm.url}/admin/workers")
    for one in (page, sheet, machines):
        one.evaluate("window.kept = true")
    machines.locator(".machines header .chip.s-busy").wait_for(timeout=RENDERED_MS)
    page.locator(f"[data-job={job}] progress").first.wait_for(timeout=RENDERED_MS)
    farm.wait_until(lambda: farm.job(job).state == "running", 30)
    farm.kill_child()
    farm.wait_until(lambda: (farm.job(job).state, farm.job(job).attempt) == ("running", 2), 60, "it is tried again")
    farm.kill("w1")  # the parent too: nobody is left to tell of it, and the lease runs out
    attempts = page.locator("section", has_text="Attempts")
    attempts.get_by_text("its lease ran out").first.wait_for(timeout=60_000)
    machines.locator(".machines > li:not(.inactive)").wait_for(state="detached", timeout=60_000)
    farm.start_worker(wait=False)
    page.locator(".picture").nth(1).wait_for(timeout=120_000)
    assert attempts.locator("th").count() == 3
    attempts.get_by_text("Crashed").first.wait_for()
    sheet.locator(".vgrid .cell img").nth(2).wait_for(timeout=120_000)
    sheet.locator(".chip.s-done").first.wait_for(timeout=RENDERED_MS)
    machines.locator(".machines > li:not(.inactive) header .chip.s-ready").wait_for(timeout=RENDERED_MS)
    assert kept(page, sheet, machines) == [True] * 3
    for one in (window, other, admin):
        one.check_clean(farm.url)


def test_a_redis_that_is_lost_and_comes_back_empty_needs_no_reload(farm: LiveFarm, visit: Any) -> None:
    windows = [visit() for _ in range(3)]
    page, batches, admin = (
        live(one, f"{farm.url}{path}") for one, path in zip(windows, ("/", "/batches", "/admin"), strict=True)
    )
    for one in (page, batches, admin):
        one.evaluate("window.kept = true")
    farm.kill("redis")
    page.locator("#live-mark:not(.on)").wait_for(timeout=20_000)
    job = farm.submit("made when Redis was away", notify=False)
    page.locator(f"#{job}").wait_for(timeout=20_000)
    batch = batch_of(farm, "Begun when Redis was away", 2)
    row = batches.locator(f"#{batch}")
    row.wait_for(timeout=20_000)
    for one in (page, admin):
        one.get_by_role("heading", name="Degraded").wait_for(timeout=20_000)
    farm.start_redis()
    for one in (page, batches, admin):
        one.locator("#live-mark.on").wait_for(timeout=30_000)
    page.locator(f"#{job} img").wait_for(timeout=60_000)
    row.locator(".chip.s-done").wait_for(timeout=60_000)
    admin.locator(".strip img").first.wait_for(timeout=20_000)
    admin.get_by_role("heading", name="Degraded").wait_for(state="detached", timeout=20_000)
    assert kept(page, batches, admin) == [True] * 3
    for one in windows:
        one.check_clean(farm.url)


def test_submit_list_job_and_cancel_without_javascript(farm: LiveFarm, visit: Any) -> None:
    window = visit(javascript=False, width=390)
    page = window.page
    page.goto(f"{farm.url}/studio")
    page.fill("#prompt", "a purple vase")
    page.get_by_role("button", name="Suggest additions").click()
    page.locator("button.add").first.click()
    assert page.input_value("#prompt").startswith("a purple vase, ")
    page.locator("label.pick", has_text="128×128").click()
    page.locator("label.pick:has([name=count][value='16'])").click()
    page.locator("summary", has_text="Steps").click()
    page.fill("#steps", "50")
    page.get_by_role("button", name="Generate").click()
    making = page.locator(".making").first
    job = making.get_attribute("id")
    page.goto(f"{farm.url}/jobs?text=purple")
    page.locator(f"#{job} .line").first.click()
    page.get_by_role("button", name="Cancel 16 pictures").click()
    page.get_by_role("button", name="Render 16 pictures again").wait_for()
    assert farm.wait_for_jobs([job]) == {job: "cancelled"}
    window.check_clean(farm.url)


def test_a_picture_of_the_gallery_is_traced(farm: LiveFarm, visit: Any) -> None:
    job = farm.submit("a looked-up lamp", format="jpeg")
    farm.wait_for_jobs([job])
    data = farm.outputs.read(farm.images(job)[0].storage_key)
    window = visit()
    window.page.goto(f"{farm.url}/lookup")
    window.page.set_input_files("input[type=file]", {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": data})
    window.page.locator(f"#{job}").wait_for()
    window.check_clean(farm.url)
