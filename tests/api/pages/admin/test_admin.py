"""The admin pages: everything shown in both languages, commands to workers, charts from the rollup, keys and webhooks made and
taken back, the audit searched and its chain walked, secrets masked, text that stays text."""

import html
import json
import re

import pytest
from flask.testing import FlaskClient
from sqlalchemy import insert, select, update

from api.v1.farm.settings import shown_settings
from imagefarm.auth import Scope
from imagefarm.ids import new_id
from imagefarm.states import WorkerState
from imagefarm.store import db_now
from imagefarm.store.audit import append, seal
from imagefarm.store.models import Attempt, Event, Image, Tenant, Webhook, WebhookDelivery, Worker
from scheduler.metrics.rollup import roll
from scheduler.queue import finish, workers
from scheduler.queue.retry import Failure, FailureClass
from tests.api.pages.conftest import Site
from tests.api.pages.payloads import PAYLOADS
from tests.api.pages.reading import Reading

HEADERS = {"Origin": "http://localhost"}
PAGES = ("/admin", "/admin/workers", "/admin/keys", "/admin/users", "/admin/webhooks", "/admin/audit", "/admin/settings")


def send(site: Site, path: str, **fields: object) -> object:
    return site.http.post(path, data=fields, headers=HEADERS)


def series(text: str) -> list[list[list[float | None]]]:
    """The data of the page's charts: pictures, failures and loads, wait, render."""
    return [json.loads(html.unescape(found)) for found in re.findall(r'data-series="([^"]+)"', text)]


def test_empty_admin_pages_in_both_languages(site: Site) -> None:
    for path, words, chinese_words in (
        ("/admin", ("Throughput", "No pictures yet.", "Tenants today"), ("产量", "还没有图片。", "今日租户")),
        ("/admin/workers", ("Workers", "worker_1", "Drain"), ("工作节点", "每分钟图片")),
        ("/admin/keys", ("No keys yet.", "view the jobs and pictures"), ("还没有密钥。", "查看所属租户")),
        ("/admin/users", ("No users yet.", "also submit, cancel and retry"), ("还没有用户。", "创建用户")),
        ("/admin/webhooks", ("No webhooks yet.", "batch done"), ("还没有 Webhook。", "批次完成")),
        ("/admin/audit", ("Audit chain",), ("审计链",)),
        ("/admin/settings", ("Limits and settings",), ("只读",)),
    ):
        english, chinese = Reading(site.page(path).text), Reading(site.page(path, "zh").text)
        assert english.wrong == chinese.wrong == []
        for word in words:
            assert word in english.text, path
        for word in chinese_words:
            assert word in chinese.text, path


def test_a_worker_is_drained_and_resumed_by_form(site: Site) -> None:
    site.submit("held by the worker")
    assert site.inside.claim("worker_1", images=1)
    assert "Drain (finishes 1 job first)" in site.page("/admin/workers").text
    for command, state in (("drain", "draining"), ("quarantine", "quarantined"), ("resume", "ready")):
        response = site.http.post(f"/admin/workers/worker_1/{command}", headers=HEADERS)
        assert (response.status_code, response.headers["Location"]) == (303, "/admin/workers")
        assert site.get("/api/v1/workers")["items"][0]["desired_state"] == state
    for command in ("warm", "unload"):
        assert send(site, f"/admin/workers/worker_1/{command}", model="demo").status_code == 303
        assert send(site, f"/admin/workers/worker_1/{command}", model="nothing").status_code == 422
        assert send(site, f"/admin/workers/nobody/{command}", model="demo").status_code == 404
    with site.app_context.store.read() as session:
        commands = session.scalar(select(Worker.pending_commands).where(Worker.id == "worker_1"))
    assert commands == [{"do": "warm", "model": "demo"}, {"do": "unload", "model": "demo"}]
    assert site.http.post("/admin/workers/worker_1/explode", headers=HEADERS).status_code == 404
    assert site.http.post("/admin/workers/nobody/drain", headers=HEADERS).status_code == 404
    assert site.http.post("/admin/workers/worker_1/drain", headers={"Origin": "https://example.org"}).status_code == 403


def test_charts_show_what_was_written_down_and_what_came_since(site: Site) -> None:
    site.rendered("a mug", count=3)
    job = site.submit("a failure")["id"]
    finish.fail(site.app_context.store, site.claim(job), Failure(FailureClass.INPUT, "bad", "bad"), site.app_context.settings)
    for made in (3, 5):
        for period in ("hour", "day", "week"):
            pictures, failures, wait, render = series(site.page(f"/admin?period={period}").text)
            assert len(pictures[0]) == len(pictures[1]) == len(failures[2]) == len(wait[2])
            assert sum(pictures[1]) == made
            assert sum(failures[1]) == 1
            assert [value for value in wait[1] if value is not None]
            assert [value for value in render[2] if value is not None]
            told = site.get(f"/api/v1/statistics?period={period}")
            assert (told["whole"]["images"], told["whole"]["failures"]) == (made, 1)
        if made == 3:  # then they are written down, and two more come, which nobody has written down yet
            with site.app_context.store.write() as session:
                session.execute(update(Image).values(created_at=Image.created_at - 120))
                session.execute(update(Attempt).values(ended_at=Attempt.ended_at - 120))
                assert roll(session, site.app_context.store.now()) >= 1
            site.rendered("a bottle", count=2)
    assert site.page("/admin?period=eon").status_code == 422
    tenant = site.get("/api/v1/tenants")["items"][0]
    assert (tenant["name"], tenant["images_today"] >= 5, tenant["share"], tenant["fair_share"]) == ("default", True, 1.0, 1.0)


def test_a_key_is_shown_once_and_revoked(site: Site) -> None:
    response = send(site, "/admin/keys", name="importer", tenant="shop", scope=["read"])
    assert (response.status_code, response.headers["Cache-Control"]) == (201, "no-store")
    key = re.search(r"<code>(if_\w+_[\w-]+)</code>", response.text)
    assert key is not None
    assert site.page("/jobs", Authorization=f"Bearer {key[1]}").status_code == 200
    listed = site.page("/admin/keys").text
    assert "importer" in listed
    assert key[1] not in listed
    key_id = re.search(r"/admin/keys/(key_\w+)/revoke", listed)
    assert key_id is not None
    replaced = send(site, f"/admin/keys/{key_id[1]}/rotate")
    assert (replaced.status_code, replaced.headers["Cache-Control"]) == (201, "no-store")
    new = re.search(r"<code>(if_\w+_[\w-]+)</code>", replaced.text)
    assert new is not None
    for works in (key[1], new[1]):
        assert site.page("/jobs", Authorization=f"Bearer {works}").status_code == 200
    listed = site.page("/admin/keys").text
    assert "Replaced, works until" in listed
    assert new[1] not in listed
    assert send(site, f"/admin/keys/{key_id[1]}/revoke").status_code == 303
    assert site.page("/jobs", Authorization=f"Bearer {key[1]}").status_code == 401
    assert "Revoked" in site.page("/admin/keys").text
    for wrong in ({"name": ""}, {"name": "x" * 65, "scope": ["read"]}, {"name": "a", "scope": ["everything"]}, {"name": "a"}):
        refused = send(site, "/admin/keys", **wrong)
        assert refused.status_code == 422
        assert 'role="alert"' in refused.text


def test_limits_stand_beside_what_is_used_of_them(site: Site) -> None:
    limits = {"queued": 40, "running": 7, "images_per_day": 10, "pixels": 1_048_576, "steps": 9}
    with site.app_context.store.write() as session:
        session.add(Tenant(id="tenant_narrow", name="narrow", weight=2.0, limits=limits, created_at=0.0))
    key = site.key("narrow")
    for number in range(9):
        site.submit(f"a mug no. {number}", headers=key)
    [told] = [one for one in site.get("/api/v1/tenants")["items"] if one["name"] == "narrow"]
    used = {
        name: told[name] for name in ("queued", "max_queued", "max_running", "images_today", "images_per_day", "pixels", "steps")
    }
    assert list(used.values()) == [9, 40, 7, 9, 10, 1_048_576, 9]
    row = site.page("/admin").text.partition('<th scope="row">narrow')[2].partition("</tr>")[0]
    for words in ("of 40<", "of 7<", "of 10<", "at most 1,048,576 pixels", "≤ 9 steps"):
        assert words in row
    assert row.count(" full") == 1  # nine of ten pictures are asked for


def test_limits_of_a_tenant_are_set_by_form(site: Site) -> None:
    site.key("set-by-form")
    [tenant] = [one["id"] for one in site.get("/api/v1/tenants")["items"] if one["name"] == "set-by-form"]
    path = f"/admin/tenants/{tenant}/limits"
    for lang, words in (
        ("en", ("Change limits of set-by-form", "Queued jobs")),
        ("zh", ("修改 set-by-form 的上限", "排队的任务")),
    ):
        shown = Reading(site.page("/admin/users", lang).text)
        assert shown.wrong == []
        block = site.page("/admin/users", lang).text.partition(f'<li id="{tenant}"')[2].partition("</li>")[0]
        assert all(word in block for word in words)

    def told() -> dict[str, int]:
        return next(one["limits"] for one in site.get("/api/v1/tenants")["items"] if one["id"] == tenant)

    empty = dict.fromkeys(("queued", "running", "images_per_day", "pixels", "steps"), "")
    response = send(site, path, **empty | {"queued": "40", "steps": " 9 "})
    assert (response.status_code, response.headers["Location"]) == (303, f"/admin/users#{tenant}")
    assert told() == {"queued": 40, "steps": 9}
    block = site.page("/admin/users").text.partition(f'<li id="{tenant}"')[2].partition("</li>")[0]
    assert 'name="queued" value="40"' in block
    assert "of 40<" in block
    assert "≤ 9<" in block
    for wrong in ("-1", "many", "1.5", "9" * 20, "9" * 5000):
        refused = send(site, path, **empty | {"queued": "41", "pixels": wrong})
        assert refused.status_code == 422
        block = refused.text.partition(f'<li id="{tenant}"')[2].partition("</li>")[0]
        assert 'role="alert"' in block
        assert "Pixels per picture</strong>" in block
        assert 'name="queued" value="41"' in block, "the typed value is still there"
        assert refused.text.count('role="alert"') == 1
    assert told() == {"queued": 40, "steps": 9}
    assert send(site, path, steps="").status_code == 303
    assert told() == {"queued": 40}, "a field that was not sent stays"
    audit = html.unescape(site.page("/admin/audit?kind=tenant.limited").text)
    assert "by open farm, before queued=40 steps=9, after queued=40" in audit
    assert send(site, "/admin/tenants/tenant_nobody/limits", **empty).status_code == 404
    member = site.key("set-by-form", Scope.SUBMIT, Scope.READ)
    assert site.app.test_client(use_cookies=False).post(path, data={"queued": "9"}, headers=member).status_code == 403


def test_the_key_form_takes_limits(site: Site) -> None:
    made = send(site, "/admin/keys", name="narrow key", scope=["submit"], queued="5", steps="", pixels="4096")
    assert made.status_code == 201
    key = next(one for one in site.get("/api/v1/keys")["items"] if one["name"] == "narrow key")
    assert key["limits"] == {"queued": 5, "pixels": 4096}
    assert "Queued jobs ≤ 5" in site.page("/admin/keys").text
    assert "排队的任务 ≤ 5" in site.page("/admin/keys", "zh").text
    assert '<details id="key-limits">' in site.page("/admin/keys").text
    refused = send(site, "/admin/keys", name="wrong key", scope=["submit"], queued="-5")
    assert refused.status_code == 422
    for words in ("Queued jobs</strong>: is less than 0", '<details id="key-limits" open>', 'name="queued" value="-5"'):
        assert words in refused.text
    assert "wrong key" not in [one["name"] for one in site.get("/api/v1/keys")["items"]]


def test_users_are_made_renewed_and_disabled(site: Site) -> None:
    def signed_in(name: str, password: str) -> FlaskClient | None:
        http = site.app.test_client()
        response = http.post("/sign-in", data={"name": name, "password": password}, headers=HEADERS)
        return http if response.status_code == 303 else None

    made = send(site, "/admin/users", name="Mei@shop", password="first password", role="viewer", tenant="shop")
    assert (made.status_code, made.headers["Location"]) == (303, "/admin/users")
    listed = site.page("/admin/users").text
    assert "mei@shop" in listed
    assert "Never" in listed
    [user_id] = re.findall(r"/admin/users/(user_\w+)/disable", listed)
    browser = signed_in("mei@shop", "first password")
    assert browser is not None
    assert browser.get("/jobs").status_code == 200
    assert send(site, f"/admin/users/{user_id}/password", password="second password").status_code == 303
    assert signed_in("mei@shop", "first password") is None
    assert signed_in("mei@shop", "second password") is not None
    assert send(site, f"/admin/users/{user_id}/disable").status_code == 303
    assert signed_in("mei@shop", "second password") is None
    listed = site.page("/admin/users").text
    assert "Disabled" in listed
    assert f"/admin/users/{user_id}/" not in listed
    assert send(site, "/admin/users/user_nobody/disable").status_code == 404
    assert send(site, "/admin/users/user_nobody/password", password="a long password").status_code == 404


def test_what_is_wrong_with_a_user_is_said_and_no_password_comes_back(site: Site) -> None:
    good = {"name": "li", "password": "a long password", "role": "member"}
    assert send(site, "/admin/users", **good).status_code == 303
    [user_id] = re.findall(r"/admin/users/(user_\w+)/disable", site.page("/admin/users").text)
    for path, wrong, status in (
        ("/admin/users", {"name": "LI"}, 409),
        ("/admin/users", {"name": "a b"}, 422),
        ("/admin/users", {"name": "", "role": ""}, 422),
        ("/admin/users", {"name": "wu", "password": "short one"}, 422),
        ("/admin/users", {"name": "wu", "role": "emperor"}, 422),
        ("/admin/users", {"name": "wu", "tenant": "x" * 65}, 422),
        (f"/admin/users/{user_id}/password", {"password": "short one"}, 422),
        (f"/admin/users/{user_id}/password", {"password": "x" * 201}, 422),
    ):
        refused = send(site, path, **good | wrong)
        assert refused.status_code == status
        assert 'role="alert"' in refused.text
        assert (good | wrong)["password"] not in refused.text


def test_a_webhook_is_made_shown_and_removed_and_its_messages_sent_again(site: Site) -> None:
    response = send(site, "/admin/webhooks", url="https://1.1.1.1/hook", kind=["batch.done", "job.failed"])
    assert (response.status_code, response.headers["Cache-Control"]) == (201, "no-store")
    secret = re.search(r"<code>(whsec_[^<]+)</code>", response.text)
    assert secret is not None
    listed = site.page("/admin/webhooks").text
    assert "https://1.1.1.1/hook" in listed
    assert secret[1] not in listed
    hook = re.search(r"/admin/webhooks/(\w+)/remove", listed)
    assert hook is not None
    message = new_id("msg")
    with site.app_context.store.write() as session:
        session.execute(
            insert(WebhookDelivery).values(
                id=message,
                webhook_id=hook[1],
                tenant_id="tenant_default",
                kind="batch.done",
                body="{}",
                state="dead",
                tries=9,
                next_at=0.0,
                status=500,
                error="it answered <b>500</b>",
                created_at=db_now(),
            )
        )
    text = site.page("/admin/webhooks").text
    assert "1 given up" in text
    assert "it answered &lt;b&gt;500&lt;/b&gt;" in text
    assert send(site, f"/admin/webhooks/{hook[1]}/deliveries/{message}/replay").status_code == 303
    assert site.get(f"/api/v1/webhooks/{hook[1]}/deliveries")["items"][0]["state"] == "waiting"
    assert message in site.page(f"/admin/webhooks?webhook={hook[1]}").text
    assert send(site, f"/admin/webhooks/{hook[1]}/remove").status_code == 303
    assert "No webhooks yet." in site.page("/admin/webhooks").text
    for wrong in ({"url": "nothing", "kind": ["job.failed"]}, {"url": "https://example.com/", "kind": []}):
        assert send(site, "/admin/webhooks", **wrong).status_code == 422


def test_the_audit_is_searched_and_its_chain_verified(site: Site) -> None:
    job = site.submit("audited")["id"]
    with site.app_context.store.write() as session:
        for number in range(70):
            append(session, "thing.happened", f"thing_{number}", "tenant_default", {"number": number})
        number = seal(session)
    assert f"Verified: {number} events, chain intact." in site.page("/admin/audit?verify=1").text
    assert re.findall(r"<strong title=\"([a-z.]+)\">", site.page(f"/admin/audit?subject={job}").text) == ["job.submitted"]
    kinds = site.page("/admin/audit?kind=thing").text
    assert set(re.findall(r"<strong title=\"([a-z.]+)\">", kinds)) == {"thing.happened"}
    older = re.search(r'rel="next" href="([^"]+)"', kinds)
    assert older is not None
    assert len(re.findall(r"<strong title=\"thing.happened\">", site.page(html.unescape(older[1])).text)) == 10
    assert "No matching events" in site.page("/admin/audit?tenant=nobody").text
    assert site.page("/admin/audit?before=x").status_code == 422
    with site.app_context.store.write() as session:
        session.get_one(Event, 2).kind = "job.forged"
    assert "Chain broken at event 2" in site.page("/admin/audit?verify=1").text


def test_settings_show_their_origin_and_no_password(site: Site) -> None:
    settings = site.app_context.settings.model_copy(update={"redis_url": "redis://:hunter2@example:6379/0"})
    shown = {one.name: one for one in shown_settings(settings)}
    assert shown["redis_url"].value == "redis://:***@example:6379/0"
    assert shown["lease_s"].origin == "default"
    assert "max_queued_per_tenant" in site.page("/admin/settings").text


def test_the_admin_pages_are_for_admins(site: Site) -> None:
    for scopes, status in (((Scope.SUBMIT, Scope.READ), 403), ((Scope.FARM,), 200)):
        key = site.key("someone", *scopes)
        for path in PAGES:
            assert site.page(path, **key).status_code == status
        for path in ("/api/v1/statistics", "/api/v1/tenants"):
            assert site.http.get(path, headers=key).status_code == status
    reader = site.key("someone", Scope.READ, Scope.SUBMIT)
    for path in ("/admin/keys", "/admin/webhooks", "/admin/workers/worker_1/drain", "/admin/keys/x/revoke"):
        assert site.app.test_client(use_cookies=False).post(path, headers=reader).status_code == 403


def test_hostile_text_stays_text(site: Site) -> None:
    for number, payload in enumerate(PAYLOADS):
        site.inside.worker(f"w{number}")
        workers.set_desired_state(site.app_context.store, f"w{number}", WorkerState.QUARANTINED, by="test", reason=payload)
        with site.app_context.store.write() as session:
            append(session, "made.up", "x", None, {"text": payload[:150]})
            session.execute(
                insert(Webhook).values(
                    id=new_id("hook"), tenant_id="t", url=payload, secret="", kinds=[payload], created_at=db_now()
                )
            )
    Reading(site.page("/admin/workers").text).check(*PAYLOADS)
    Reading(site.page("/admin/audit?kind=made.up").text).check(*PAYLOADS)
    Reading(site.page("/admin/webhooks").text).check(*PAYLOADS)
    Reading(site.page("/admin").text).check()
    for payload in PAYLOADS[::6]:
        assert Reading(site.page("/admin/users").text).wrong == []
        refused = send(site, "/admin/keys", name=payload, tenant=payload, scope=[payload])
        assert refused.status_code == 422
        assert Reading(refused.text).wrong == []
        user = {"name": payload, "tenant": payload, "role": payload, "password": payload}
        assert Reading(send(site, "/admin/users", **user).text).wrong == []
        made = send(site, "/admin/users", name=f"u{len(payload)}", tenant=payload[:64], password="a long password")
        assert made.status_code in {303, 409, 422}
        assert Reading(made.text).wrong == []
        assert Reading(send(site, "/admin/webhooks", url=payload, kind=[payload]).text).wrong == []
        assert Reading(site.page("/admin/audit", "en").text).wrong == []


@pytest.mark.parametrize("path", ["/", "/studio", "/batches", "/jobs", "/lookup"])
def test_a_page_asks_for_a_key_where_the_farm_does(site: Site, path: str) -> None:
    wrong = site.page(path, Authorization="Bearer if_wrong_key")
    assert (wrong.status_code, wrong.mimetype) == (401, "text/html")
    assert site.page(path, **site.key("reader", Scope.READ)).status_code == 200
