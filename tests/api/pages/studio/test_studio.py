"""The studio: its form for every model, what it submits, what it refuses, and snippets that are one quoted text."""

import ast
import io
import json
import re
import shlex
from typing import Any

import pytest
from PIL import Image

from api.pages.studio.code_samples import write_code_samples
from api.pages.studio.form import counts_of, larger_size, sizes_of
from imagefarm.catalogue import Catalogue
from imagefarm.recipe import JobRequest
from tests.api.pages.conftest import Site
from tests.api.pages.payloads import PAYLOADS, grouped
from tests.api.pages.reading import Reading

FORM = {"prompt": "a red mug", "model": "demo", "size": "64x64", "count": "2", "seed": "7", "steps": "", "guidance": ""}


def submit(site: Site, **fields: str) -> Any:
    return site.http.post("/studio", data=FORM | fields, headers={"Origin": "http://localhost", "Accept": "text/html"})


def again(site: Site, job: dict[str, Any], change: str, **fields: str) -> Any:
    data = {"again": job["id"], "as": change} | fields
    return site.http.post("/studio", data=data, headers={"Origin": "http://localhost", "Accept": "text/html"})


def suggest(site: Site, htmx: bool = False, **fields: str) -> str:
    headers = {"Origin": "http://localhost", "Accept": "text/html"} | ({"HX-Request": "true"} if htmx else {})
    response = site.http.post("/studio/suggest", data=fields, headers=headers)
    assert response.status_code == 200
    return str(response.text)


def job_of(site: Site, location: str) -> dict[str, Any]:
    return dict(site.get(f"/api/v1/jobs/{location.partition('from=')[2].partition('&')[0]}"))


def test_an_empty_studio_offers_examples_in_both_languages(site: Site) -> None:
    assert "Your pictures will appear here." in site.page("/studio").text
    assert "你的图片会出现在这里" in site.page("/studio", "zh").text


def test_the_form_submits_what_it_says(site: Site) -> None:
    answer = submit(site)
    assert answer.status_code == 303
    job = job_of(site, answer.headers["Location"])
    assert (job["recipe"]["prompt"], job["recipe"]["seed"], job["count"]) == ("a red mug", "7", 2)
    filled = site.page(answer.headers["Location"]).text
    assert ">a red mug</textarea>" in filled
    assert 'name="seed" value=""' in filled


def test_a_kept_seed_stays(site: Site) -> None:
    location = submit(site, keep="on").headers["Location"]
    assert 'name="seed" value="7"' in site.page(location).text


def test_no_seed_means_another_one_each_time(site: Site) -> None:
    seeds = {job_of(site, submit(site, seed="").headers["Location"])["recipe"]["seed"] for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("prompt", "  ", "prompt"),
        ("seed", "-1", "whole number"),
        ("seed", "99999999999999999999", "18446744073709551615"),
        ("steps", "1000", "200"),
        ("steps", "60", "more than 50"),
        ("count", "17", "more than 16"),
        ("size", "65x64", "Width: 65"),
        ("size", "x", ""),
        ("guidance", "nan", "finite"),
        ("model", "nothing", "no model is called"),
    ],
)
def test_what_is_wrong_is_said_beside_the_form(site: Site, field: str, value: str, words: str) -> None:
    answer = submit(site, **{field: value})
    if field == "size" and value == "x":
        assert answer.status_code == 303  # no size is the model's own
        return
    assert answer.status_code == 422
    assert words in Reading(answer.text).text
    assert 'class="error"' in answer.text


def test_variations_take_the_recipe_with_new_seeds(site: Site) -> None:
    first = job_of(site, submit(site).headers["Location"])
    answer = again(site, first, "variations")
    varied = job_of(site, answer.headers["Location"])
    assert varied["count"] == 4
    assert varied["recipe"]["seed"] != first["recipe"]["seed"]
    assert varied["recipe"] | {"seed": 0} == first["recipe"] | {"seed": 0}


def test_one_picture_is_made_larger_and_upscaled_with_its_seed(site: Site) -> None:
    first = job_of(site, submit(site).headers["Location"])
    larger = job_of(site, again(site, first, "larger", seed="8").headers["Location"])
    assert (larger["recipe"]["width"], larger["recipe"]["seed"], larger["count"]) == (128, "8", 1)
    upscaled = job_of(site, again(site, first, "upscale").headers["Location"])
    assert (upscaled["recipe"]["upscale"], upscaled["recipe"]["seed"]) == ({"model": "lanczos", "scale": 2}, "7")
    refused = again(site, larger, "larger")
    assert refused.status_code == 409
    assert "has no larger size" in refused.text
    assert again(site, first, "smaller").status_code == 422


def test_a_kind_speaks_where_steps_and_guidance_are_left_empty(site: Site) -> None:
    draft = job_of(site, submit(site, kind="draft").headers["Location"])
    assert draft["recipe"]["steps"] == 4
    typed = job_of(site, submit(site, kind="jewellery", steps="9").headers["Location"])
    assert typed["recipe"]["steps"] == 9
    photo = job_of(site, submit(site, model="sd15", size="512x512", kind="illustration").headers["Location"])
    assert (photo["recipe"]["steps"], photo["recipe"]["guidance"]) == (21, 8.4)


def test_format_quality_sampler_and_upscale_are_taken(site: Site) -> None:
    answer = submit(site, model="sd15", size="512x512", format="webp", quality="80", sampler="ddim", upscale="lanczos:3")
    recipe = job_of(site, answer.headers["Location"])["recipe"]
    assert (recipe["format"], recipe["quality"], recipe["sampler"], recipe["upscale"]["scale"]) == ("webp", 80, "ddim", 3)
    filled = site.page(answer.headers["Location"]).text
    for value in ('<option value="webp" selected>', '<option value="lanczos:3" selected>', "<option selected>ddim</option>"):
        assert value in filled


def test_a_suggestion_stands_beside_the_prompt_and_changes_it_only_when_pressed(site: Site) -> None:
    piece = suggest(site, htmx=True, prompt="a gold ring")
    assert "<textarea" not in piece
    added = re.findall(r'data-add="([^"]+)"', piece)
    assert len(added) == 4
    assert re.findall(r'data-add="([^"]+)"', suggest(site, htmx=True, prompt="a gold ring", variant="1")) != added
    whole = suggest(site, prompt="a gold ring", add="light")
    assert f">a gold ring, {added[1]}</textarea>" in whole
    assert f">a gold ring, {', '.join(added)}</textarea>" in suggest(site, prompt="a gold ring", add="all")
    assert ">a gold ring</textarea>" in suggest(site, prompt="a gold ring")
    assert "绒" in suggest(site, htmx=True, prompt="金戒指", kind="jewellery", variant="2") + suggest(
        site, htmx=True, prompt="金戒指", variant="1"
    ) + suggest(site, htmx=True, prompt="金戒指")
    assert "data-add" not in suggest(site, htmx=True, prompt="")


def start(site: Site, data: bytes, name: str = "cup.png", **fields: str) -> Any:
    headers = {"Origin": "http://localhost", "Accept": "text/html"}
    return site.http.post("/studio/init-image", data=fields | {"init_image_file": (io.BytesIO(data), name)}, headers=headers)


def png(side: int = 64) -> bytes:
    saved = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(saved, "PNG")
    return saved.getvalue()


def test_a_picture_to_begin_from_is_shown_sent_along_and_taken_away(site: Site) -> None:
    piece = start(site, png()).text
    [asset] = set(re.findall(r"asset_[0-9A-Z]{26}", piece))
    form = {"model": "sd15", "size": "512x512", "init_image": asset, "strength": "0.4"}
    recipe = job_of(site, submit(site, **form).headers["Location"])["recipe"]
    assert (recipe["init_image"], recipe["strength"]) == (asset, 0.4)
    away = site.http.post("/studio/init-image", data=form | {"no_init_image": "on"}, headers={"Origin": "http://localhost"}).text
    assert asset not in away
    assert 'type="file"' in away


def test_a_product_is_kept_pixel_for_pixel(site: Site) -> None:
    [asset] = set(re.findall(r"asset_[0-9A-Z]{26}", start(site, png()).text))
    form = {"init_image": asset, "init_image_as": "product", "cut": "white", "shadow": "0.25", "scale": "0.5", "strength": "0.4"}
    location = submit(site, **form).headers["Location"]
    recipe = job_of(site, location)["recipe"]
    assert (recipe["init_image"], recipe["strength"]) == (None, None)
    subject = recipe["subject"]
    assert (subject["image"], subject["mask"], subject["shadow"]) == (asset, "white", 0.25)
    assert subject["place"]["scale"] == 0.5
    filled = site.page(location).text
    assert 'value="product" checked' in filled
    assert '<option value="white" selected>' in filled
    assert asset in site.page(f"/jobs/{job_of(site, location)['id']}").text


def test_a_picture_comes_with_the_form_where_there_is_no_script(site: Site) -> None:
    data = FORM | {"model": "sd15", "size": "512x512", "init_image_file": (io.BytesIO(png(32)), "x.png")}
    answer = site.http.post("/studio", data=data, headers={"Origin": "http://localhost", "Accept": "text/html"})
    assert job_of(site, answer.headers["Location"])["recipe"]["init_image"].startswith("asset_")


@pytest.mark.parametrize("data", [b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_picture_is_said_where_it_was_dropped(site: Site, data: bytes) -> None:
    answer = start(site, data)
    assert answer.status_code == 200
    assert 'class="error"' in answer.text
    assert "asset_" not in answer.text


def test_another_s_picture_is_not_begun_from(site: Site) -> None:
    answer = submit(site, model="sd15", size="512x512", init_image="asset_" + "0" * 26)
    assert answer.status_code == 422
    assert "there is no such asset" in answer.text


def test_each_picture_shows_how_it_was_made(site: Site) -> None:
    job = site.rendered("shown in full", count=2, seed=50)
    text = site.page("/studio").text
    assert f"/api/v1/jobs/{job['id']}/archive.zip" in text
    for image in job["images"]:
        assert image["sha256"] in text
    shot = text[text.index(job["images"][1]["id"]) :]
    for told in ("51", "8 · flow-euler", "1 ms", "worker_1"):
        assert told in shot


@pytest.mark.parametrize(("asked", "ending"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")])
def test_a_download_is_named_by_the_format_of_its_file(site: Site, asked: str, ending: str) -> None:
    job = site.rendered("in a format", format=asked)
    assert f'download="{job["id"]}-0.{ending}"' in site.page("/studio").text


def test_larger_sizes_are_within_the_model_s_limits(catalogue: Catalogue) -> None:
    for entry in catalogue.entries.values():
        for size in sizes_of(entry):
            larger = larger_size(entry, size.width, size.height)
            if larger is not None:
                assert larger.width > size.width
                catalogue.resolve(JobRequest(prompt="x", model=entry.name, width=larger.width, height=larger.height))


def test_settings_are_reused_from_a_job(site: Site) -> None:
    job = job_of(site, submit(site, steps="5").headers["Location"])
    text = site.page(f"/studio?from={job['id']}&seed=99&keep=on&count=1").text
    assert 'name="seed" value="99"' in text
    assert 'value="5"' in text


def test_older_pictures_follow_by_key_whatever_came_from_batches(site: Site) -> None:
    jobs = [site.submit(f"an old mug no. {number}.")["id"] for number in range(30)]
    rows = [{"prompt": f"a mug of a table {number}"} for number in range(200)]
    batch = site.http.post("/api/v1/batches", json={"name": "many", "template": "{{ prompt }}", "rows": rows})
    assert batch.status_code == 202, batch.text

    def shown(page: str) -> list[str]:
        return [job for job in re.findall(r'<li class="making[^"]*" id="(job_\w+)"', page) if job in jobs]

    first = site.page("/studio").text
    assert "a mug of a table" not in first
    assert shown(first) == jobs[:5:-1]
    [older] = re.findall(r'rel="next" href="([^"]+)"', first)
    assert older == f"/studio?before={jobs[6]}"
    second = site.page(older).text
    assert shown(second) == jobs[5::-1]
    assert f'hx-get="{older}"' in second
    assert "↑ Newest" in second
    # an older page has no gap when new jobs arrive
    site.submit("one more mug")
    down_to = f"/studio?down_to={jobs[6]}"
    whole = site.page(down_to).text
    assert shown(whole) == jobs[:5:-1]
    assert f'hx-get="{down_to}"' in whole
    assert 'rel="next"' not in whole
    assert "No older pictures." in site.page("/studio?before=job_" + "0" * 26).text
    single = site.get("/api/v1/jobs?batch=none&limit=200")["items"]
    assert [job["id"] for job in single if job["id"] in jobs] == jobs[::-1]
    assert not any(job["batch_id"] for job in single)


@pytest.mark.parametrize("name", ["before", "down_to"])
@pytest.mark.parametrize("value", ["batch_01", "<b>", "job_"])
def test_a_part_that_no_job_begins_is_refused_by_name(site: Site, name: str, value: str) -> None:
    answer = site.http.get("/studio", query_string={name: value})
    assert answer.status_code == 422
    assert name in answer.text


def test_every_model_has_a_form_whose_choices_it_takes(site: Site, catalogue: Catalogue) -> None:
    for entry in catalogue.entries.values():
        text = site.page(f"/studio?model={entry.name}").text
        assert f'value="{entry.name}" selected' in text
        for size in sizes_of(entry):
            assert f'value="{size.value}"' in text
            catalogue.resolve(
                JobRequest(prompt="x", model=entry.name, width=size.width, height=size.height, count=counts_of(entry)[-1])
            )


def test_hostile_text_stays_text(site: Site) -> None:
    for group in grouped(20):
        for payload in group:
            site.submit(payload)
        Reading(site.page("/studio").text).check(*group)
    for payload in PAYLOADS[::4]:
        refused = submit(
            site, **dict.fromkeys(("prompt", "model", "seed", "steps", "guidance", "size", "count", "width"), payload)
        )
        assert refused.status_code == 422
        Reading(refused.text).check(payload)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_text_in_every_other_field_stays_text(site: Site, payload: str) -> None:
    others = (
        "init_image_as",
        "cut",
        "shadow",
        "scale",
        "kind",
        "sampler",
        "init_image",
        "strength",
        "upscale",
        "format",
        "quality",
        f"lora:{payload}",
        "keep",
        "variant",
        "add",
    )
    refused = submit(site, model="sd15", size="512x512", **dict.fromkeys(others, payload))
    assert refused.status_code == 422
    assert Reading(refused.text).wrong == []
    for htmx in (True, False):
        assert Reading(suggest(site, htmx, prompt=payload, **dict.fromkeys(others, payload))).wrong == []
    assert Reading(start(site, png(16), payload, strength=payload).text).wrong == []
    assert Reading(again(site, {"id": payload}, payload, seed=payload).text).wrong == []
    query = dict.fromkeys((*others, "prompt", "from", "job")[:-2], payload)
    found = Reading(site.http.get("/studio", query_string=query, headers={"Accept": "text/html"}).text)
    assert found.wrong == []
    assert payload.strip() in found.text


@pytest.mark.parametrize("prompt", [*PAYLOADS, 'it\'s $(reboot) `reboot` "quoted" \\ $HOME', "line\nbreak", "--out=/etc"])
def test_code_samples_quote_whatever_the_prompt_holds(prompt: str) -> None:
    recipe = {
        "prompt": prompt,
        "model": "demo",
        "width": 64,
        "height": 64,
        "steps": 8,
        "guidance": 0.0,
        "seed": "42",
        "loras": [],
    }
    made = write_code_samples("http://localhost:8000", recipe, 2)
    words = shlex.split(made.curl)
    assert json.loads(words[-1])["prompt"] == prompt
    assert words[:2] == ["curl", "http://localhost:8000/api/v1/jobs"]
    call = next(node for node in ast.walk(ast.parse(made.python)) if isinstance(node, ast.Call) and node.keywords)
    assert ast.literal_eval(call.args[0]) == prompt
    assert shlex.split(made.cli)[-2:] == ["--", prompt]
