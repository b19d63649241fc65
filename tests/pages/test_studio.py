"""The studio: its form for every model, what it submits, what it refuses, and snippets that are one quoted text."""

import ast
import json
import shlex
from typing import Any

import pytest

from api.pages.snippets import snippets
from api.pages.studio_form import counts_of, sizes_of
from imagefarm.catalogue import Catalogue
from imagefarm.recipe import JobRequest
from tests.pages.conftest import Site
from tests.pages.payloads import PAYLOADS, grouped
from tests.pages.reading import Reading

FORM = {"prompt": "a red mug", "model": "demo", "size": "64x64", "count": "2", "seed": "7", "steps": "", "guidance": ""}


def submit(site: Site, **fields: str) -> Any:
    return site.http.post("/studio", data=FORM | fields, headers={"Origin": "http://localhost", "Accept": "text/html"})


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
        ("size", "65x64", "width 65"),
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
    answer = site.http.post("/studio", data={"variations": first["id"]}, headers={"Origin": "http://localhost"})
    varied = job_of(site, answer.headers["Location"])
    assert varied["count"] == 4
    assert varied["recipe"]["seed"] != first["recipe"]["seed"]
    assert varied["recipe"] | {"seed": 0} == first["recipe"] | {"seed": 0}


def test_settings_are_reused_from_a_job(site: Site) -> None:
    job = job_of(site, submit(site, steps="5").headers["Location"])
    text = site.page(f"/studio?from={job['id']}&seed=99&keep=on&count=1").text
    assert 'name="seed" value="99"' in text
    assert 'value="5"' in text


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


@pytest.mark.parametrize("prompt", [*PAYLOADS, 'it\'s $(reboot) `reboot` "quoted" \\ $HOME', "line\nbreak", "--out=/etc"])
def test_snippets_quote_whatever_the_prompt_holds(prompt: str) -> None:
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
    made = snippets("http://localhost:8000", recipe, 2)
    words = shlex.split(made.curl)
    assert json.loads(words[-1])["prompt"] == prompt
    assert words[:2] == ["curl", "http://localhost:8000/api/v1/jobs"]
    call = next(node for node in ast.walk(ast.parse(made.python)) if isinstance(node, ast.Call) and node.keywords)
    assert ast.literal_eval(call.args[0]) == prompt
    assert shlex.split(made.cli)[-2:] == ["--", prompt]
