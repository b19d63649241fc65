"""The desk: everything shown in both languages, orders to workers, the audit chain, secrets masked, text that stays text."""

import json
import re

import pytest

from imagefarm.auth import Scope
from imagefarm.states import WorkerState
from imagefarm.store.audit import seal
from imagefarm.store.models import Event
from scheduler import finish, workers
from scheduler.retry import Failure, FailureClass
from tests.pages.conftest import Site
from tests.pages.payloads import PAYLOADS
from tests.pages.reading import Reading

HEADERS = {"Origin": "http://localhost"}


def test_an_empty_desk_in_both_languages(site: Site) -> None:
    english, chinese = Reading(site.page("/admin").text), Reading(site.page("/admin", "zh").text)
    for words in ("Workers", "Throughput", "Nobody waits.", "Audit chain", "No key has been made."):
        assert words in english.text
    for words in ("工作进程", "产量", "没有人在等待。", "审计链", "还没有创建密钥。"):
        assert words in chinese.text
    assert english.wrong == chinese.wrong == []


def test_a_worker_is_drained_and_resumed_by_form(site: Site) -> None:
    site.submit("held by the worker")
    assert site.inside.claim("worker_1", images=1)
    assert "Drain: one job finishes" in site.page("/admin").text
    for order, state in (("drain", "draining"), ("quarantine", "quarantined"), ("resume", "ready")):
        answer = site.http.post(f"/admin/workers/worker_1/{order}", headers=HEADERS)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/admin")
        assert site.get("/api/v1/workers")["items"][0]["wanted"] == state
    assert site.http.post("/admin/workers/worker_1/explode", headers=HEADERS).status_code == 404
    assert site.http.post("/admin/workers/nobody/drain", headers=HEADERS).status_code == 404
    assert site.http.post("/admin/workers/worker_1/drain", headers={"Origin": "https://example.org"}).status_code == 403


def test_throughput_counts_pictures_and_failures(site: Site) -> None:
    site.rendered("a mug", count=3)
    job = site.submit("a failure")["id"]
    finish.fail(site.farm.store, site.claim(job), Failure(FailureClass.INPUT, "bad", "bad"), site.farm.settings)
    for period in ("hour", "day", "week"):
        text = site.page(f"/admin?period={period}").text
        series = re.search(r'data-series="([^"]+)"', text)
        assert series is not None
        times, pictures, failures = json.loads(series[1])
        assert len(times) == len(pictures) == len(failures)
        assert sum(pictures) == 3
        assert sum(failures) == 1
    assert site.page("/admin?period=eon").status_code == 422


def test_the_audit_chain_is_verified_on_demand(site: Site) -> None:
    site.submit("audited")
    with site.farm.store.write() as session:
        number = seal(session)
    assert f"Whole: all {number} events follow." in site.page("/admin?verify=1").text
    with site.farm.store.write() as session:
        session.get_one(Event, 2).kind = "job.forged"
    assert "Broken at no. 2" in site.page("/admin?verify=1").text


def test_settings_show_their_origin_and_no_password(site: Site) -> None:
    settings = site.farm.settings.model_copy(update={"redis_url": "redis://:hunter2@example:6379/0"})
    from api.pages.admin import _settings

    shown = {one.name: one for one in _settings(settings)}
    assert shown["redis_url"].value == "redis://:***@example:6379/0"
    assert shown["lease_s"].origin == "default"
    assert "hunter2" not in site.page("/admin").text
    assert "max_queued_per_tenant" in site.page("/admin").text


def test_the_desk_is_for_admins(site: Site) -> None:
    for scopes, status in (((Scope.SUBMIT, Scope.READ), 403), ((Scope.ADMIN,), 200)):
        assert site.page("/admin", **site.key("someone", *scopes)).status_code == status


def test_hostile_text_stays_text(site: Site) -> None:
    for number, payload in enumerate(PAYLOADS):
        site.inside.worker(f"w{number}")
        workers.want(site.farm.store, f"w{number}", WorkerState.QUARANTINED, by="test", reason=payload)
    reading = Reading(site.page("/admin").text)
    reading.check(*PAYLOADS)


@pytest.mark.parametrize("path", ["/", "/studio", "/batches", "/jobs", "/trace"])
def test_a_page_asks_for_a_key_where_the_farm_does(site: Site, path: str) -> None:
    wrong = site.page(path, Authorization="Bearer if_wrong_key")
    assert (wrong.status_code, wrong.mimetype) == (401, "text/html")
    assert site.page(path, **site.key("reader", Scope.READ)).status_code == 200
