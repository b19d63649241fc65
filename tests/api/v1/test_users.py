"""People: passwords, sessions, roles; and what a page of another site can not do with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from threading import Barrier, Thread

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from api.http import sign_in_throttle
from imagefarm.auth import Scope, create_key, revoke_key
from imagefarm.errors import Conflict, InvalidRequest
from imagefarm.store import db_now
from imagefarm.store.models import Event, UserAccount, WebSession
from imagefarm.supervisor.bind_check import check_bind_address
from imagefarm.users import check_password, create_user, disable_user, forget_old_sessions, has_users, set_password
from tests.api.farm_api import FarmApi, problem

ORIGIN = {"Origin": "http://localhost"}
PASSWORD = "correct horse battery"


@pytest.fixture
def browser(keyed: FarmApi) -> Iterator[FlaskClient]:
    keyed.app_context.redis.flushdb()
    with keyed.app.test_client() as browser:
        yield browser


def sign_in(browser: FlaskClient, name: str, password: str = PASSWORD) -> TestResponse:
    return browser.post("/sign-in", data={"name": name, "password": password, "next": "/jobs"}, headers=ORIGIN)


def test_a_person_signs_in_and_out(keyed: FarmApi, browser: FlaskClient) -> None:
    made = create_user(keyed.app_context.store, name="Ada", password=PASSWORD, tenant="studio")
    assert made.name == "ada"
    assert browser.get("/jobs").status_code == 401
    response = sign_in(browser, "ADA")
    assert (response.status_code, response.headers["Location"]) == (303, "/jobs")
    cookie = response.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in cookie.split(";")}
    assert browser.get("/jobs").status_code == 200
    made_job = browser.post("/api/v1/jobs", json={"prompt": "a cup"}, headers=ORIGIN)
    assert made_job.status_code == 202
    kept = browser.get_cookie("imagefarm_session")
    assert kept is not None
    with keyed.app_context.store.read() as session:
        rows = [str(row) for row in session.execute(select(WebSession.__table__))]
        rows += [str(row) for row in session.execute(select(UserAccount.__table__))]
    assert not any(kept.value in row or PASSWORD in row for row in rows)
    assert browser.post("/sign-out", headers=ORIGIN).status_code == 303
    browser.set_cookie("imagefarm_session", kept.value)
    assert browser.get("/jobs").status_code == 401, "a session that was ended must not be taken up again"


@pytest.mark.parametrize(
    ("role", "submit", "admin"), [("viewer", 403, 403), ("member", 202, 403), ("admin", 202, 200), ("operator", 202, 200)]
)  # fmt: skip
def test_roles_are_scopes(keyed: FarmApi, browser: FlaskClient, role: str, submit: int, admin: int) -> None:
    create_user(keyed.app_context.store, name=f"one-{role}", password=PASSWORD, role=role)
    sign_in(browser, f"one-{role}")
    assert browser.get("/api/v1/jobs").status_code == 200
    assert browser.post("/api/v1/jobs", json={"prompt": "a cup"}, headers=ORIGIN).status_code == submit
    assert browser.get("/api/v1/keys").status_code == admin
    if role == "admin":
        made = browser.post("/api/v1/keys", json={"name": "by ada"}, headers=ORIGIN).get_json()
        with keyed.app_context.store.read() as session:
            event = session.scalars(select(Event).where(Event.subject == made["id"])).one()
        assert event.data["by"] == "user one-admin"


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "https://example.org"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
     {"Origin": "http://localhost:1"}, {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"}],
)  # fmt: skip
def test_another_site_s_form_changes_nothing(keyed: FarmApi, browser: FlaskClient, headers: dict[str, str]) -> None:
    if check_password(keyed.app_context.store, "form", PASSWORD) is None:
        create_user(keyed.app_context.store, name="form", password=PASSWORD, role="operator")
    sign_in(browser, "form")
    for path in ("/api/v1/jobs", "/studio", "/sign-out"):
        assert browser.post(path, data={"prompt": "x"}, headers=headers).status_code == 403
    assert browser.get("/jobs").status_code == 200


def test_sessions_end(keyed: FarmApi, browser: FlaskClient) -> None:
    store, settings = keyed.app_context.store, keyed.app_context.settings

    def age(**values: object) -> None:
        with store.write() as session:
            session.execute(update(WebSession).values(**values))

    def signed_in() -> bool:
        return browser.get("/api/v1/jobs").status_code == 200

    create_user(store, name="tired", password=PASSWORD)
    for end in (
        lambda: age(seen_at=db_now() - settings.session_idle_s - 1),
        lambda: age(created_at=db_now() - settings.session_max_age_s - 1),
        lambda: set_password(store, "tired", PASSWORD),
    ):
        sign_in(browser, "tired")
        age(seen_at=db_now() - 120)
        assert signed_in()
        end()
        assert not signed_in()
    sign_in(browser, "tired")
    disable_user(store, "tired")
    assert not signed_in()
    assert sign_in(browser, "tired").status_code == 401
    age(seen_at=db_now() - 91 * 86400)
    with store.write() as session:
        assert forget_old_sessions(session) > 0
        assert session.scalars(select(WebSession.token_hash)).all() == []


def test_a_key_s_session_ends_with_the_key(keyed: FarmApi, browser: FlaskClient) -> None:
    made = create_key(keyed.app_context.store, name="x", scopes=[Scope.READ])
    browser.post("/sign-in", data={"key": made.key}, headers=ORIGIN)
    assert browser.get("/api/v1/jobs").status_code == 200
    kept = browser.get_cookie("imagefarm_session")
    assert kept is not None
    assert made.key not in kept.value
    revoke_key(keyed.app_context.store, made.info.id)
    assert browser.get("/api/v1/jobs").status_code == 401


def test_guessing_is_slowed_and_says_until_when(keyed: FarmApi, browser: FlaskClient) -> None:
    create_user(keyed.app_context.store, name="guessed", password=PASSWORD)
    for _ in range(sign_in_throttle.MAX_PER_ADDRESS_AND_NAME):
        assert sign_in(browser, "guessed", "wrong").status_code == 401
    response = sign_in(browser, "guessed")
    assert response.status_code == 429
    assert 0 < int(response.headers["Retry-After"]) <= sign_in_throttle.WINDOW_S
    create_user(keyed.app_context.store, name="other", password=PASSWORD)
    assert sign_in(browser, "other").status_code == 303, "another's sign-in must go on"


def test_what_is_no_user(keyed: FarmApi) -> None:
    store = keyed.app_context.store
    assert has_users(store)
    create_user(store, name="taken", password=PASSWORD)
    with pytest.raises(Conflict):
        create_user(store, name="Taken", password=PASSWORD)
    for values in (
        {"name": "", "password": PASSWORD},
        {"name": "a b", "password": PASSWORD},
        {"name": "ä", "password": PASSWORD},
        {"name": "x" * 65, "password": PASSWORD},
        {"name": "short", "password": "123456789"},
        {"name": "long", "password": "x" * 201},
        {"name": "role", "password": PASSWORD, "role": "root"},
    ):
        with pytest.raises(InvalidRequest):
            create_user(store, **values)
    assert check_password(store, "nobody", PASSWORD) is None
    assert check_password(store, "taken\0", "\ud800") is None


def test_a_person_over_rest_from_making_to_disabling(
    keyed: FarmApi, browser: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    admin = keyed.key("operators", Scope.FARM)
    wanted = {"name": "Grace@Shop.example", "password": PASSWORD, "role": "viewer", "tenant": "grace's shop"}
    made = keyed.http.post("/api/v1/users", json=wanted, headers=admin)
    assert made.status_code == 201, made.text
    person = made.get_json()
    assert (person["name"], person["role"], person["tenant"]) == ("grace@shop.example", "viewer", "grace's shop")
    assert (person["disabled_at"], person["last_sign_in_at"]) == (None, None)
    problem(keyed.http.post("/api/v1/users", json=wanted | {"name": "GRACE@shop.example"}, headers=admin), 409)
    assert sign_in(browser, "grace@shop.example").status_code == 303
    assert browser.get("/api/v1/jobs").status_code == 200
    assert browser.get("/api/v1/users").status_code == 403, "a viewer sees no list of people"
    other = "another correct horse"
    changed = keyed.http.post("/api/v1/users/Grace@shop.example/password", json={"password": other}, headers=admin)
    assert changed.get_json()["last_sign_in_at"] is not None
    assert browser.get("/api/v1/jobs").status_code == 401, "a new password ends the sessions"
    assert sign_in(browser, "grace@shop.example").status_code == 401
    assert sign_in(browser, "grace@shop.example", other).status_code == 303
    ended = [keyed.http.post(f"/api/v1/users/{person['id']}/disable", headers=admin).get_json() for _ in range(2)]
    assert ended[0]["disabled_at"] is not None
    assert ended[0] == ended[1]
    assert browser.get("/api/v1/jobs").status_code == 401
    assert sign_in(browser, "grace@shop.example", other).status_code == 401
    listed = keyed.http.get("/api/v1/users", headers=admin)
    assert person["id"] in {item["id"] for item in listed.get_json()["items"]}
    with keyed.app_context.store.read() as session:
        events = session.scalars(select(Event).where(Event.subject == person["id"]).order_by(Event.id)).all()
        stored = [json.dumps(event.data) for event in session.scalars(select(Event))]
        stored += [str(row) for row in session.execute(select(UserAccount.__table__))]
    kinds = ["user.created", "user.signed_in", "user.password", "user.signed_in", "user.disabled"]
    assert [event.kind for event in events] == kinds
    assert all(event.data["by"].startswith("key_") for event in events if event.kind != "user.signed_in")
    for text in (listed.text, made.text, caplog.text, *stored):
        assert PASSWORD not in text
        assert other not in text
    assert "argon2" not in listed.text
    assert "/api/v1/users" in caplog.text


def test_a_name_is_taken_once(keyed: FarmApi) -> None:
    admin, together, answers = keyed.key("operators", Scope.FARM), Barrier(4), []

    def make() -> None:
        together.wait(10)
        body = {"name": "wanted", "password": PASSWORD}
        answers.append(keyed.app.test_client().post("/api/v1/users", json=body, headers=admin).status_code)

    threads = [Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201, 409, 409, 409]


def test_a_user_is_enough_for_a_farm_that_others_reach(keyed: FarmApi) -> None:
    settings = keyed.app_context.settings.model_copy(update={"host": "0.0.0.0"})
    create_user(keyed.app_context.store, name="somebody", password=PASSWORD)
    assert check_bind_address(settings, keyed.app_context.store) is None


def test_a_forged_session_is_none(keyed: FarmApi) -> None:
    for value in ("", "x", "x" * 5000, "é", "' OR 1=1 --"):
        with keyed.app.test_client() as browser:
            browser.set_cookie("imagefarm_session", value)
            problem(browser.get("/api/v1/jobs"), 401)
