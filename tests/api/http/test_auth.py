"""Keys, scopes and tenants: every route of the registry, asked by those who may not."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from sqlalchemy import select

from api.http.auth import SESSION_COOKIE
from api.http.routes import Route, routes_of
from imagefarm.auth import Scope, create_key
from imagefarm.ids import new_id
from imagefarm.store.models import ApiKey, Event, Job
from imagefarm.users import create_user, open_session
from tests.api.farm_api import FarmApi, problem

PUBLIC = {"healthz", "readyz", "openapi", "docs", "explain_problem"}
"""What anybody may ask."""


@pytest.fixture(scope="module")
def owned(keyed: FarmApi) -> dict[str, str]:
    """Things of one tenant, whose every text must never be seen by another."""
    owner = keyed.key("owner")
    body = {"prompt": "SECRET-PROMPT", "labels": {"SECRET-LABEL": "SECRET-VALUE"}, "custom_id": "SECRET-ID"}
    job = keyed.http.post("/api/v1/jobs", json=body, headers=owner).get_json()
    [image_id] = keyed.render(keyed.claim(job["id"]))
    image = keyed.get(f"/api/v1/images/{image_id}", headers=owner)
    with keyed.app_context.store.read() as session:
        tenant_id = session.get_one(Job, job["id"]).tenant_id
    waiting = keyed.http.post("/api/v1/jobs", json=body, headers=owner).get_json()
    file = keyed.http.get(f"/api/v1/images/{image_id}/file", headers=owner).data
    [asset] = keyed.http.post("/api/v1/assets", data=file, content_type="image/png", headers=owner).get_json()["items"]
    return {
        "job_id": waiting["id"],
        "done_id": job["id"],
        "image_id": image_id,
        "asset_id": asset["id"],
        "sha256": image["sha256"],
        "pixel_sha256": image["pixel_sha256"],
        "file": file.hex(),
        "owner": owner["Authorization"],
        "tenant_id": tenant_id,
    }


def address(route: Route, owned: dict[str, str]) -> str:
    """The route's address, naming what the owner has where it can."""
    others = {"name": "demo", "worker": "worker_1", "key": "nokey", "user": "nobody", "code": "conflict"}
    return re.sub(r"{(\w+)}", lambda match: (owned | others).get(match[1], new_id("batch")), route.path)


def ask(api: FarmApi, route: Route, owned: dict[str, str], headers: dict[str, str]) -> Any:
    body: dict[str, Any] = {"json": {"prompt": "a cup", "name": "x"}} if route.body else {}
    if route.consumes:
        body = {"data": bytes.fromhex(owned["file"]), "content_type": route.consumes[-1]}
    return api.http.open(address(route, owned), method=route.method, headers=headers, **body)


def routes(api: FarmApi) -> Iterator[Route]:
    found = routes_of(api.app)
    assert len(found) > 20
    yield from found


def test_without_a_key_nothing_is_told(keyed: FarmApi, owned: dict[str, str]) -> None:
    for route in routes(keyed):
        response = ask(keyed, route, owned, {})
        if route.scope is None:
            assert route.name in PUBLIC
            assert response.status_code < 400
        else:
            problem(response, 401)
            assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_no_shared_cache_keeps_what_needs_a_key(keyed: FarmApi, owned: dict[str, str]) -> None:
    """Every route, asked by the owner, and by those who get an error: `private` or `no-store`, and never `public`."""
    owner = {"Authorization": owned["owner"]}
    for route in routes(keyed):
        if route.scope is None:
            continue
        for headers in (owner, keyed.key("owner", Scope.FARM), keyed.key("stranger"), {}):
            response = ask(keyed, route, owned, headers)
            assert is_private(response.headers["Cache-Control"]), (route.path, response.status_code)
            response.close()
    files = [f"/api/v1/images/{owned['image_id']}/file{query}" for query in ("", "?thumb=64")]
    for path in (*files, f"/api/v1/assets/{owned['asset_id']}/file", f"/api/v1/jobs/{owned['done_id']}/archive.zip"):
        response = keyed.http.get(path, headers=owner)
        assert response.status_code == 200, path
        assert is_private(response.headers["Cache-Control"]), path
        response.close()


def is_private(cache_control: str) -> bool:
    directives = {directive.strip() for directive in cache_control.split(",")}
    return "public" not in directives and bool(directives & {"private", "no-store"})


@pytest.mark.parametrize("key", ["if_abc_def", "if__", "nonsense", "if_" + "a" * 10 + "_" + "b" * 43])
def test_a_wrong_key_is_no_key(keyed: FarmApi, owned: dict[str, str], key: str) -> None:
    right = owned["owner"].removeprefix("Bearer ")
    for wrong in (key, right[:-1], right + "x", right.upper(), right.replace("if_", "IF_")):
        problem(keyed.http.get("/api/v1/jobs", headers={"Authorization": f"Bearer {wrong}"}), 401)


KINDS = ("key", "token", "browser")
SECRET = "a secret of thirty-two bytes and some more"


def headers_of(api: FarmApi, kind: str, folder: Path, tenant: str, *scopes: Scope) -> dict[str, str]:
    """The headers of a caller with these scopes: by key, by bearer token, or by a browser that signed in."""
    if kind == "token":
        settings = api.app_context.settings
        settings.jwt_secret_file = folder / "secret"
        settings.jwt_secret_file.write_text(SECRET)
        settings.jwt_issuer, settings.jwt_audience, settings.jwt_farm_scope = "https://id.example", "imagefarm", True
        claims = {"iss": "https://id.example", "aud": "imagefarm", "sub": "somebody", "exp": time.time() + 600}
        claims |= {"tenant": tenant, "scope": " ".join(scopes)}
        return {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}
    if kind == "browser":
        made = create_key(api.app_context.store, name="test", scopes=scopes, tenant=tenant)
        token = open_session(api.app_context.store, key_id=made.info.id)
        return {"Cookie": f"{SESSION_COOKIE}={token}", "Origin": "http://localhost"}
    return api.key(tenant, *scopes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scope_opens_its_routes_and_no_other(keyed: FarmApi, owned: dict[str, str], kind: str, tmp_path: Path) -> None:
    for scope in Scope:
        headers = headers_of(keyed, kind, tmp_path, "scoped", scope)
        for route in routes(keyed):
            response = ask(keyed, route, owned, headers)
            if route.scope in {None, scope} or scope is Scope.FARM or (scope is Scope.ADMIN and route.scope is not Scope.FARM):
                assert response.status_code not in {401, 403}, (route.path, scope)
            else:
                assert str(route.scope) in problem(response, 403)["detail"]
            response.close()
            assert response.status_code < 500


@pytest.mark.parametrize("kind", KINDS)
def test_another_tenant_sees_nothing(keyed: FarmApi, owned: dict[str, str], kind: str, tmp_path: Path) -> None:
    """Every route, called with another tenant's key that has every scope but farm: foreign objects do not exist."""
    stranger = headers_of(keyed, kind, tmp_path, "stranger", Scope.SUBMIT, Scope.READ, Scope.ADMIN)
    for route in routes(keyed):
        if route.media == "text/event-stream" and not route.path_names:
            continue  # without an end; see test_events
        response = ask(keyed, route, owned, stranger)
        if "job_id" in route.path_names or "image_id" in route.path_names:
            problem(response, 404)
        text = response.text if "image" not in response.mimetype else ""
        if route.name == "lookup_image":  # tells what the file itself says, which the stranger has
            text = json.dumps(response.get_json() | {"metadata": None})
        assert "SECRET" not in text, route.path
        assert owned["tenant_id"] not in text, route.path
        assert "tenant_" not in text or route.name in {"openapi", "docs"} or route.scope is Scope.ADMIN, route.path
        if route.name == "lookup_image":
            assert response.get_json()["items"] == []
    for query in ("custom_id=SECRET-ID", "text=SECRET", "label=SECRET-LABEL:SECRET-VALUE", "state=queued", "model=demo"):
        listed = keyed.get(f"/api/v1/jobs?{query}", headers=stranger)["items"]
        assert all(job["recipe"]["prompt"] == "a cup" for job in listed)
    for digest in ("sha256", "pixel_sha256"):
        assert keyed.get(f"/api/v1/images?{digest}={owned[digest]}", headers=stranger)["items"] == []
    assert keyed.get(f"/api/v1/jobs/{owned['job_id']}", headers={"Authorization": owned["owner"]})["state"] == "queued"


def test_an_admin_of_a_tenant_stays_in_it(keyed: FarmApi, owned: dict[str, str], tmp_path: Path) -> None:
    admin = keyed.key("shop", Scope.ADMIN)
    other = create_key(keyed.app_context.store, name="other", tenant="elsewhere").info
    farms = create_key(keyed.app_context.store, name="farm's own", tenant="shop", scopes=["farm"]).info
    made = keyed.http.post("/api/v1/keys", json={"name": "till"}, headers=admin)
    assert (made.status_code, made.get_json()["tenant"], made.get_json()["scopes"]) == (201, "shop", ["submit", "read"])
    named = keyed.http.post("/api/v1/keys", json={"name": "till 2", "tenant": "shop", "scopes": ["admin"]}, headers=admin)
    assert named.status_code == 201
    assert {item["tenant"] for item in keyed.get("/api/v1/keys", headers=admin)["items"]} == {"shop"}
    for body in ({"name": "x", "tenant": "elsewhere"}, {"name": "x", "tenant": "default"}, {"name": "x", "scopes": ["farm"]}):
        assert "farm" in problem(keyed.http.post("/api/v1/keys", json=body, headers=admin), 403)["detail"]
    for key in (other, farms):  # not even the farm's key that belongs to the tenant: its replacement would be shown
        for name in (key.id, key.prefix):
            problem(keyed.http.post(f"/api/v1/keys/{name}/rotate", json={}, headers=admin), 404)
            problem(keyed.http.delete(f"/api/v1/keys/{name}", headers=admin), 404)
    problem(keyed.http.get(f"/api/v1/jobs/{owned['job_id']}", headers=admin), 404)
    assert keyed.get(f"/api/v1/events?subject={owned['job_id']}", headers=admin)["items"] == []
    assert keyed.get(f"/api/v1/events?tenant={owned['tenant_id']}", headers=admin)["items"] == []
    assert keyed.get("/api/v1/events", headers=admin)["items"] != []


def test_an_admin_of_a_tenant_manages_its_users_alone(keyed: FarmApi) -> None:
    admin, password = keyed.key("shop", Scope.ADMIN), "a long password"
    store = keyed.app_context.store
    create_user(store, name="elsewhere", password=password, tenant="elsewhere")
    create_user(store, name="the-operator", password=password, tenant="shop", role="operator")
    made = keyed.http.post("/api/v1/users", json={"name": "clerk", "password": password}, headers=admin)
    assert (made.status_code, made.get_json()["tenant"]) == (201, "shop")
    for body in ({"tenant": "elsewhere"}, {"role": "operator"}):
        refused = keyed.http.post("/api/v1/users", json={"name": "x", "password": password} | body, headers=admin)
        assert "farm" in problem(refused, 403)["detail"]
    for name in ("elsewhere", "the-operator"):
        problem(keyed.http.post(f"/api/v1/users/{name}/password", json={"password": password}, headers=admin), 404)
        problem(keyed.http.post(f"/api/v1/users/{name}/disable", headers=admin), 404)
    assert {item["tenant"] for item in keyed.get("/api/v1/users", headers=admin)["items"]} == {"shop"}


def test_a_token_crosses_tenants_only_where_a_setting_lets_it(keyed: FarmApi, tmp_path: Path) -> None:
    token = headers_of(keyed, "token", tmp_path, "shop", *Scope)
    assert len(keyed.get("/api/v1/tenants", headers=token)["items"]) > 1
    keyed.app_context.settings.jwt_farm_scope = False
    for scopes in (tuple(Scope), (Scope.ADMIN,)):
        token = headers_of(keyed, "token", tmp_path, "shop", *scopes)
        keyed.app_context.settings.jwt_farm_scope = False
        problem(keyed.http.get("/api/v1/tenants", headers=token), 403)
        assert {item["tenant"] for item in keyed.get("/api/v1/keys", headers=token)["items"]} <= {"shop"}


def test_a_key_expires_as_it_was_made_to(keyed: FarmApi) -> None:
    farm = keyed.key("operators", Scope.FARM)
    made = keyed.http.post("/api/v1/keys", json={"name": "soon", "expires_in": 3600}, headers=farm).get_json()
    with keyed.app_context.store.write() as session:
        key = session.get_one(ApiKey, made["id"])
        assert key.expires_at == key.created_at + 3600
    renewed = keyed.http.post(f"/api/v1/keys/{made['id']}/rotate", json={"grace_s": 60}, headers=farm).get_json()
    again = keyed.http.post(f"/api/v1/keys/{made['id']}/rotate", json={"grace_s": 60}, headers=farm).get_json()
    assert (renewed["lifetime_s"], again["lifetime_s"]) == (3600, 3600), "a replacement lives as long as the first"
    bearer = {"Authorization": f"Bearer {renewed['key']}"}
    assert keyed.http.get("/api/v1/jobs", headers=bearer).status_code == 200
    with keyed.app_context.store.write() as session:
        session.get_one(ApiKey, renewed["id"]).expires_at = session.get_one(ApiKey, made["id"]).created_at - 1
    problem(keyed.http.get("/api/v1/jobs", headers=bearer), 401)
    for wrong in (0, 59, -1, 1e12, True, "soon"):
        refused = keyed.http.post("/api/v1/keys", json={"name": "x", "expires_in": wrong}, headers=farm)
        assert problem(refused, 422)["errors"][0]["field"] == "expires_in"


def test_an_admin_sees_and_acts_for_all(keyed: FarmApi, owned: dict[str, str]) -> None:
    admin = keyed.key("operators", Scope.FARM)
    assert keyed.get(f"/api/v1/jobs/{owned['done_id']}", headers=admin)["recipe"]["prompt"] == "SECRET-PROMPT"
    ids = {job["id"] for job in keyed.get("/api/v1/jobs?custom_id=SECRET-ID", headers=admin)["items"]}
    assert ids == {owned["job_id"], owned["done_id"]}
    assert keyed.get(f"/api/v1/images?sha256={owned['sha256']}", headers=admin)["items"][0]["id"] == owned["image_id"]
    tenants = {flow["tenant"] for flow in keyed.get("/api/v1/queue", headers=admin)["flows"]}
    assert "owner" in tenants
    mine = keyed.http.post("/api/v1/jobs", json={"prompt": "a jug"}, headers={"Authorization": owned["owner"]}).get_json()
    assert keyed.http.post(f"/api/v1/jobs/{mine['id']}/cancel", headers=admin).get_json()["state"] == "cancelled"
    assert keyed.http.post(f"/api/v1/jobs/{mine['id']}/retry", headers=admin).get_json()["state"] == "queued"
    events = keyed.get(f"/api/v1/events?subject={mine['id']}", headers=admin)["items"]
    assert [event["kind"] for event in events] == ["job.retried", "job.cancelled", "job.submitted"]
    assert events[0]["data"]["by"].startswith("key_")


def test_workers_tell_a_tenant_no_more_than_needed(keyed: FarmApi) -> None:
    [seen] = keyed.get("/api/v1/workers", headers=keyed.key("stranger"))["items"]
    assert (seen["host"], seen["pid"], seen["load"], seen["facts"]) == (None, None, None, None)
    [all_of_it] = keyed.get("/api/v1/workers", headers=keyed.key("operators", Scope.FARM))["items"]
    assert (all_of_it["host"], all_of_it["pid"]) == ("here", 1)


def test_a_key_over_http_from_making_to_revoking(keyed: FarmApi) -> None:
    admin = keyed.key("operators", Scope.FARM)
    made = keyed.http.post("/api/v1/keys", json={"name": "shop", "tenant": "shop", "scopes": ["read"]}, headers=admin)
    assert made.status_code == 201
    key = made.get_json()["key"]
    assert key.startswith(f"if_{made.get_json()['prefix']}_")
    bearer = {"Authorization": f"Bearer {key}"}
    assert keyed.get("/api/v1/jobs", headers=bearer)["items"] == []
    listed = keyed.http.get("/api/v1/keys", headers=admin)
    assert key.rsplit("_", 1)[1] not in listed.text
    info = next(item for item in listed.get_json()["items"] if item["id"] == made.get_json()["id"])
    assert info["last_used_at"] is not None
    for _ in range(2):
        revoked = keyed.http.delete(f"/api/v1/keys/{info['id']}", headers=admin)
        assert revoked.get_json()["revoked_at"] is not None
    problem(keyed.http.get("/api/v1/jobs", headers=bearer), 401)


def test_the_secret_is_nowhere(keyed: FarmApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    made = create_key(keyed.app_context.store, name="hush", tenant="hush")
    keyed.http.get("/api/v1/jobs", headers={"Authorization": f"Bearer {made.key}"})
    keyed.http.get("/api/v1/jobs?x=1", headers={"Authorization": f"Bearer {made.key}x"})
    with keyed.app_context.store.read() as session:
        rows = [str(row) for row in session.execute(select(ApiKey.__table__))]
        rows += [json.dumps(row.data) for row in session.scalars(select(Event))]
    secret = made.key.split("_", 2)[2]
    assert not any(secret in row for row in rows)
    assert "/api/v1/jobs" in caplog.text
    assert secret not in caplog.text


def test_a_bulk_change_stays_within_its_tenant(keyed: FarmApi) -> None:
    owner, stranger = keyed.key("bulk-owner"), keyed.key("bulk-stranger")
    job = keyed.http.post("/api/v1/jobs", json={"prompt": "a cup"}, headers=owner).get_json()
    changed = keyed.http.post("/api/v1/jobs/cancel", json={"expected": 1000}, headers=stranger).get_json()
    assert changed == {"matched": 0, "changed": 0}
    assert keyed.get(f"/api/v1/jobs/{job['id']}", headers=owner)["state"] == "queued"
