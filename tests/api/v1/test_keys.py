"""Keys beside HTTP, and what an open farm is."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, Thread

import pytest
from sqlalchemy import select

from imagefarm.auth import Scope, authenticate_key, create_key, has_keys, is_open, list_keys, revoke_key
from imagefarm.errors import InvalidRequest, NotFound
from imagefarm.settings import load_settings
from imagefarm.store.models import Event, Tenant
from tests.api.farm_api import FarmApi, problem


def test_keys_for_the_command_line(api: FarmApi) -> None:
    store = api.app_context.store
    assert not has_keys(store)
    made = create_key(store, name="first", tenant="shop", scopes=["admin", "read"])
    assert has_keys(store)
    assert made.info.scopes == ["read", "admin"]
    caller = authenticate_key(store, made.key)
    assert caller is not None
    assert (caller.key_id, caller.is_farm_admin, caller.tenant_id) == (made.info.id, False, made.info.tenant_id)
    assert [info.name for info in list_keys(store, tenant_id=made.info.tenant_id)] == ["first"]
    again = create_key(store, name="second", tenant="shop")
    assert again.info.tenant_id == made.info.tenant_id
    assert revoke_key(store, again.info.prefix).revoked_at is not None
    assert authenticate_key(store, again.key) is None
    revoke_key(store, made.info.id)
    assert not has_keys(store)
    with pytest.raises(NotFound):
        revoke_key(store, "nope")
    with pytest.raises(InvalidRequest, match="scope"):
        create_key(store, name="x", scopes=["root"])


def test_a_tenant_is_made_once(api: FarmApi) -> None:
    store, together, found = api.app_context.store, Barrier(8), []

    def make() -> None:
        together.wait(10)
        found.append(create_key(store, name="x", tenant="wanted by many").info.tenant_id)

    threads = [Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    with store.read() as session:
        assert session.scalars(select(Tenant.id).where(Tenant.name == "wanted by many")).all() == found[:1]
        told = select(Event.subject).where(Event.kind == "tenant.created", Event.subject == found[0])
        assert len(session.scalars(told).all()) == 1


def test_a_key_counts_on_an_open_farm_too(api: FarmApi) -> None:
    reader = api.key("reader", Scope.READ)
    problem(api.http.post("/api/v1/jobs", json={"prompt": "a cup"}, headers=reader), 403)
    api.submit("only of the default tenant")
    assert api.get("/api/v1/jobs", headers=reader)["items"] == []
    problem(api.http.get("/api/v1/jobs", headers={"Authorization": "Bearer if_x_y"}), 401)


@pytest.mark.parametrize(
    ("host", "auth", "is_so"),
    [
        ("127.0.0.1", "auto", True),
        ("::1", "auto", True),
        ("localhost", "auto", True),
        ("127.8.8.8", "auto", True),
        ("0.0.0.0", "auto", False),
        ("::", "auto", False),
        ("192.168.1.5", "auto", False),
        ("farm.example", "auto", False),
        ("127.0.0.1", "keys", False),
        ("0.0.0.0", "open", True),
    ],
)
def test_open_on_loopback_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, auth: str, is_so: bool) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_open(load_settings(host=host, auth=auth)) is is_so


def test_a_page_of_this_farm_may_change_things(api: FarmApi) -> None:
    headers = {"Origin": "http://localhost:8000", "Host": "localhost:8000", "Sec-Fetch-Site": "same-origin"}
    job = api.submit(headers=headers)
    assert job["urls"]["self"].startswith("http://localhost:8000/")
