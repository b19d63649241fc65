"""The jobs: filters in the address, paging that never jumps, forms that cancel and retry, text that stays text."""

import re

import pytest

from imagefarm.redis import JobProgress, publish_progress
from imagefarm.states import JobState
from imagefarm.store import jobs
from scheduler.queue import finish
from scheduler.queue.retry import Failure, FailureClass
from tests.api.pages.conftest import Site
from tests.api.pages.payloads import PAYLOADS, grouped
from tests.api.pages.reading import Reading

ORIGIN = {"Origin": "http://localhost"}


def rows(text: str) -> list[str]:
    return re.findall(r'<li class="row" id="(job_\w+)"', text)


def state(site: Site, job_id: str) -> str:
    return str(site.get(f"/api/v1/jobs/{job_id}")["state"])


def test_an_empty_list_says_the_next_step_in_both_languages(site: Site) -> None:
    assert "No jobs yet." in site.page("/jobs").text
    assert "还没有任务" in site.page("/jobs", "zh").text
    assert "No jobs match this filter." in site.page("/jobs?state=failed").text


def test_the_address_is_the_filter(site: Site) -> None:
    red = site.submit("a red mug", labels={"sku": "A"})["id"]
    blue = site.submit("a blue vase", custom_id="front")["id"]
    assert rows(site.page("/jobs").text) == [blue, red]
    assert rows(site.page("/jobs?text=red").text) == [red]
    assert rows(site.page("/jobs?label=sku:A").text) == [red]
    assert rows(site.page("/jobs?custom_id=front").text) == [blue]
    assert rows(site.page("/jobs?state=succeeded").text) == []
    assert rows(site.page("/jobs?state=succeeded&state=queued&since=1h").text) == [blue, red]
    assert rows(site.page("/jobs?model=sdxl").text) == []


def test_a_page_that_looked_at_a_part_says_so_and_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    red = site.submit("a red mug", labels={"look": "far"})["id"]
    site.submit("a blue vase", labels={"look": "near"})
    monkeypatch.setattr(jobs, "FIRST_SCAN", 1)
    monkeypatch.setattr(jobs, "SCAN_S", 0.0)
    text = site.page("/jobs?label=look:far").text
    assert rows(text) == []
    assert "No match in the jobs searched so far" in text
    assert "No jobs match this filter." not in text
    older = re.search(r'href="(/jobs\?[^"]*before=[^"]*)"', text)
    assert older is not None
    assert rows(site.page(older[1].replace("&amp;", "&")).text) == [red]


def test_a_chip_adds_and_takes_away_its_state(site: Site) -> None:
    text = site.page("/jobs?state=failed&text=mug").text
    assert 'href="/jobs?state=queued&amp;state=failed&amp;text=mug"' in text
    assert 'href="/jobs?text=mug"' in text


@pytest.mark.parametrize(
    "query", ["state=done", "before=x", "upto=job_1", "since=1y", "text=" + "x" * 201, "label=nocolon", "text=%00"]
)
def test_a_wrong_filter_is_refused_by_name(site: Site, query: str) -> None:
    response = site.page(f"/jobs?{query}")
    assert response.status_code == 422
    assert f"<strong>{query.partition('=')[0]}</strong>" in response.text


def test_older_pages_follow_by_key(site: Site) -> None:
    made = [site.submit(f"many {number}")["id"] for number in range(45)]
    first = site.page("/jobs?text=many").text
    assert rows(first) == made[:4:-1]
    older = re.search(r'rel="next" href="([^"]+)"', first)
    assert older is not None
    second = site.page(older[1].replace("&amp;", "&")).text
    assert rows(second) == made[4::-1]
    assert 'rel="next"' not in second


def test_new_jobs_announce_themselves_and_move_nothing(site: Site) -> None:
    site.submit("steady one")
    text = site.page("/jobs?text=steady").text
    again = re.search(r'hx-get="([^"]+)"', text)
    assert again is not None
    site.submit("steady two")
    refreshed = site.page(again[1].replace("&amp;", "&")).text
    assert rows(refreshed) == rows(text)
    assert "1 new job" in refreshed
    assert 'href="/jobs?text=steady"' in refreshed


def test_a_job_shows_recipe_pictures_timeline_and_audit(site: Site) -> None:
    done = site.rendered("a green bottle", count=2, seed=7, labels={"sku": "B"})
    for lang, words in (
        ("en", ("Recipe", "Timeline", "Audit record", "Succeeded")),
        ("zh", ("配方", "时间线", "审计记录", "完成")),
    ):
        text = site.page(f"/jobs/{done['id']}", lang).text
        assert all(word in text for word in words)
    for image in done["images"]:
        assert image["sha256"] in text
        assert f"/api/v1/images/{image['id']}/file" in text
    assert "worker_1" in text
    assert "/jobs?label=sku%3AB" in text


def test_a_failed_job_says_why_and_runs_again(site: Site) -> None:
    job_id = site.submit("a doomed picture")["id"]
    failure = Failure(FailureClass.INPUT, "bad_lora", "the file is <b>broken</b>")
    finish.fail(site.app_context.store, site.claim(job_id), failure, site.app_context.settings)
    text = site.page(f"/jobs/{job_id}").text
    assert "the file is &lt;b&gt;broken&lt;/b&gt;" in text
    assert "Render 1 picture again" in text
    answer = site.http.post(f"/jobs/{job_id}/retry", headers=ORIGIN)
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/jobs/{job_id}")
    assert state(site, job_id) == JobState.QUEUED


def test_cancel_says_how_many_and_does_it(site: Site) -> None:
    job_id = site.submit("never mind", count=3)["id"]
    assert "Cancel 3 pictures" in site.page(f"/jobs/{job_id}").text
    assert site.http.post(f"/jobs/{job_id}/cancel", headers=ORIGIN).status_code == 303
    assert state(site, job_id) == JobState.CANCELLED


def test_a_form_of_another_origin_changes_nothing(site: Site) -> None:
    job_id = site.submit("mine")["id"]
    for headers in ({"Origin": "https://example.org"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert site.http.post(f"/jobs/{job_id}/cancel", headers=headers).status_code == 403
    assert state(site, job_id) == JobState.QUEUED


def test_a_look_at_an_image_in_the_making_or_nothing(site: Site) -> None:
    job_id = site.submit("in the making", preview=True)["id"]
    assert site.page(f"/jobs/{job_id}/preview.webp").status_code == 204
    claimed = site.claim(job_id)
    preview = {"index": 0, "step": 1, "width": 8, "height": 8, "media": "image/webp", "data": "d2VicA=="}
    prefix = site.app_context.settings.redis_prefix
    progress = JobProgress(job_id, "tenant_default", {"step": 1, "steps": 8, "attempt": 1}, [preview])
    publish_progress(site.app_context.redis, prefix, [progress])
    assert site.page(f"/jobs/{job_id}/preview.webp?index=0&step=1").data == b"webp"
    for query in ("index=1", "index=x", "index=99999"):
        assert site.page(f"/jobs/{job_id}/preview.webp?{query}").status_code in {200, 204}
    assert 'data-index="0"' in site.page(f"/jobs/{job_id}").text
    site.render(claimed)
    assert site.page(f"/jobs/{job_id}/preview.webp").status_code == 204
    assert site.page("/jobs/job_00000000000000000000000000/preview.webp").status_code == 204


def test_a_replay_is_asked_for_and_tells_what_it_shows(site: Site) -> None:
    done = site.rendered("replayed on the page", seed=3)
    assert "Replay 1 picture" in site.page(f"/jobs/{done['id']}").text
    answer = site.http.post(f"/jobs/{done['id']}/replay", headers=ORIGIN)
    assert answer.status_code == 303
    replay = answer.headers["Location"].rpartition("/")[2]
    assert "Replay:" not in site.page(f"/jobs/{replay}").text
    site.render(site.claim(replay))
    assert "every pixel is identical" in site.page(f"/jobs/{replay}").text
    assert "每个像素" in site.page(f"/jobs/{replay}", "zh").text
    waiting = site.submit("cannot be replayed yet")["id"]
    assert site.http.post(f"/jobs/{waiting}/replay", headers=ORIGIN | {"Accept": "text/html"}).status_code == 409


def test_the_filter_offers_workers_batches_and_what_was_asked_for(site: Site) -> None:
    done = site.rendered("made by worker one")["id"]
    waiting = site.submit("made by nobody")["id"]
    by_worker = rows(site.page("/jobs?worker=worker_1").text)
    assert done in by_worker
    assert waiting not in by_worker
    assert rows(site.page("/jobs?worker=nobody").text) == []
    assert '<option value="nobody" selected>' in site.page("/jobs?worker=nobody").text
    batch = site.http.post(
        "/api/v1/batches?name=Spring&template={{%20sku%20}}", data="sku\nA\n", content_type="text/csv"
    ).get_json()["id"]
    text = site.page(f"/jobs?batch={batch}").text
    assert f'<option value="{batch}" selected>Spring</option>' in text
    assert len(rows(text)) == 1


def test_all_that_match_are_cancelled_and_run_again_by_their_number(site: Site) -> None:
    made = [site.submit(f"bulk on the page {number}")["id"] for number in range(3)]
    other = site.submit("stays as it is")["id"]
    listed = site.page("/jobs?text=bulk+on+the+page").text
    assert "/jobs/bulk?text=bulk+on+the+page&amp;do=cancel" in listed
    assert "Cancel 3 jobs" in site.page("/jobs/bulk?text=bulk+on+the+page&do=cancel").text
    assert "取消 3 个任务" in site.page("/jobs/bulk?text=bulk+on+the+page&do=cancel", "zh").text
    form = {"do": "cancel", "text": "bulk on the page", "expected": "2"}
    headers = ORIGIN | {"Accept": "text/html"}
    refused = site.http.post("/jobs/bulk", data=form, headers=headers)
    assert refused.status_code == 409
    assert "Cancel 3 jobs" in refused.text
    assert {state(site, job) for job in made} == {"queued"}
    assert "3 jobs cancelled" in site.http.post("/jobs/bulk", data=form | {"expected": "3"}, headers=headers).text
    assert {state(site, job) for job in made} == {"cancelled"}
    assert state(site, other) == "queued"
    again = form | {"do": "retry", "expected": "3", "state": "cancelled"}
    assert "3 jobs queued again" in site.http.post("/jobs/bulk", data=again, headers=headers).text
    assert {state(site, job) for job in made} == {"queued"}
    assert "No matching job" in site.page("/jobs/bulk?text=bulk+on+the+page&do=retry").text
    for wrong in ({"do": "burn"}, {"expected": "-1"}, {"expected": "all"}, {"state": "burnt"}):
        assert site.http.post("/jobs/bulk", data=form | wrong, headers=headers).status_code == 422


def test_an_unknown_job_is_a_page_not_found(site: Site) -> None:
    response = site.page("/jobs/job_00000000000000000000000000")
    assert (response.status_code, response.mimetype) == (404, "text/html")


def test_hostile_text_stays_text(site: Site) -> None:
    for group in grouped(30):
        for payload in group:
            job_id = site.submit(
                payload, negative_prompt=payload, labels={payload[:64]: payload}, custom_id=payload, model="sd15"
            )["id"]
            Reading(site.page(f"/jobs/{job_id}").text).check(payload)
        Reading(site.page("/jobs").text).check(*group)


@pytest.mark.parametrize("payload", PAYLOADS[::4])
def test_a_hostile_filter_stays_text(site: Site, payload: str) -> None:
    query = {"text": payload, "custom_id": payload, "label": f"x:{payload}"}
    query |= dict.fromkeys(("worker", "model"), payload) if len(payload) <= 64 else {}
    found = Reading(site.http.get("/jobs", query_string=query, headers={"Accept": "text/html"}).text)
    assert found.wrong == []
    assert payload in found.values
    query |= {"do": "retry"}
    assert Reading(site.http.get("/jobs/bulk", query_string=query, headers={"Accept": "text/html"}).text).wrong == []
