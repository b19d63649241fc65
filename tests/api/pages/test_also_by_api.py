"""What a page shows the API gives too: the farm's word, a batch's rate and failures, attempts, settings, the audit searched."""

from __future__ import annotations

import html
import re

from sqlalchemy import update

from imagefarm.states import WorkerState
from imagefarm.store import db_now
from imagefarm.store.models import SweepState
from scheduler.queue import finish, workers
from scheduler.queue.retry import Failure, FailureClass
from tests.api.pages.conftest import Site


def word_on_page(site: Site) -> tuple[str, str]:
    hero = site.page("/").text.partition('<section class="hero')[2].partition("</section>")[0]
    return re.sub(r"<[^>]+>", "", hero.partition("<h1>")[2].partition("</h1>")[0]), html.unescape(
        hero.partition("<p>")[2].partition("</p>")[0]
    )


def test_the_farms_word(site: Site) -> None:
    def agree(state: str) -> None:
        told = site.get("/api/v1/queue")
        assert told["state"] == state
        assert word_on_page(site) == (state.replace("_", " ").capitalize(), told["reason"])

    agree("degraded")  # nobody has swept yet
    with site.app_context.store.write() as session:
        session.execute(update(SweepState).values(last_at=db_now()))
    agree("idle")
    job = site.submit("a mug")["id"]
    agree("waiting")
    site.claim(job)
    agree("rendering")
    workers.set_desired_state(site.app_context.store, "worker_1", WorkerState.DRAINING, by="test", reason="")
    agree("paused")
    workers.set_desired_state(site.app_context.store, "worker_1", WorkerState.READY, by="test", reason="")


def test_a_jobs_attempts(site: Site) -> None:
    job = site.submit("tried twice")["id"]
    for _ in range(2):
        failure = Failure(FailureClass.INPUT, "bad_prompt", "names nothing")
        finish.fail(site.app_context.store, site.claim(job), failure, site.app_context.settings)
        assert site.http.post(f"/api/v1/jobs/{job}/retry").status_code < 300
    tried = site.get(f"/api/v1/jobs/{job}/attempts")["items"]
    assert [(one["attempt"], one["worker"], one["outcome"]) for one in tried] == [
        (2, "worker_1", "failed"),
        (1, "worker_1", "failed"),
    ]
    page = site.page(f"/jobs/{job}").text
    for one in tried:
        assert f'<th scope="row">{one["attempt"]}</th>' in page
        assert one["reason"] in html.unescape(page)


def test_how_a_batch_gets_on(site: Site) -> None:
    rows = [{"prompt": f"a mug {number}"} for number in range(5)]
    made = site.http.post("/api/v1/batches", json={"name": "gets on", "template": "{{ prompt }}", "rows": rows}).get_json()
    assert made["progress"] is None
    ids = [job["id"] for job in site.get(f"/api/v1/jobs?batch={made['id']}")["items"]][::-1]
    site.render(site.claim(ids[0]))
    for job in ids[1:3]:
        finish.fail(
            site.app_context.store, site.claim(job), Failure(FailureClass.INPUT, "expired", "too late"), site.app_context.settings
        )
    told = site.get(f"/api/v1/batches/{made['id']}")["progress"]
    assert (told["jobs_per_minute"], told["left_s"]) == (1, 120.0)
    [group] = told["failures"]
    assert (group["code"], group["number"], group["detail"]) == ("expired", 2, "too late")
    page = html.unescape(site.page(f"/batches/{made['id']}").text)
    for words in ("1 job per minute", "about 2 min left", group["remedy"]):
        assert words in page


def test_settings_and_the_audit_searched(site: Site) -> None:
    told = {one["name"]: one for one in site.get("/api/v1/settings")["items"]}
    page = site.page("/admin/settings").text
    assert all(f'<th scope="row">{name}' in page for name in told)
    assert told["max_queued"] == {
        "name": "max_queued",
        "value": "2000000",
        "origin": "default",
        "meaning": "Most queued jobs in the whole farm",
    }
    key = site.key("shop")
    theirs = site.submit("a mug of the shop", headers=key)
    kinds = site.get("/api/v1/events?kind=key.&limit=200")["items"]
    assert {event["kind"] for event in kinds} == {"key.created"}
    assert site.get("/api/v1/events?kind=%25")["items"] == []
    [submitted] = site.get(f"/api/v1/events?tenant={kinds[0]['tenant_id']}&kind=job.")["items"]
    assert submitted["subject"] == theirs["id"]
