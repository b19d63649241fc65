"""Webhooks: one message per event, signed, retried, dead after the last retry, replayed; never sent to forbidden addresses."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select, update
from standardwebhooks import Webhook as Verifier

from api.http.context import app_context_of
from imagefarm.auth import create_key
from imagefarm.errors import InvalidRequest
from imagefarm.store.models import Webhook, WebhookDelivery
from scheduler.assets.safe_fetch import FetchFailed, check_url, fetch, is_public
from scheduler.delivery import webhooks
from scheduler.delivery.webhooks import BACKOFF_S, deliver_due
from tests.receiver import Receiver, receiving
from tests.scheduler.batches.conftest import BulkFarm

HOOKS = "/api/v1/webhooks"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def allow_private(farm: BulkFarm) -> None:
    assert farm.app is not None
    farm.settings.allow_private_urls = app_context_of(farm.app).settings.allow_private_urls = True


def register(farm: BulkFarm, receiver: Receiver, *kinds: str, **more: Any) -> dict[str, Any]:
    allow_private(farm)
    response = farm.client.post(HOOKS, json={"url": receiver.url, "kinds": list(kinds), **more})
    assert response.status_code == 201, response.text
    return dict(response.json or {})


def make_due(farm: BulkFarm) -> None:
    with farm.store.write() as session:
        session.execute(update(WebhookDelivery).values(next_at=0.0))
        session.execute(update(Webhook).values(leased_until=0.0))


def test_a_batch_is_told_of_once_and_the_signature_holds(farm: BulkFarm, receiver: Receiver) -> None:
    early = farm.batch("prompt\nmug\n")["id"]
    for job in farm.claim("wrk_a"):
        farm.finish(job)
    farm.sweep()
    hook = register(farm, receiver, "batch.done", "job.succeeded")
    batch = farm.batch("prompt\nmug\ncup\n")["id"]
    for job in farm.claim("wrk_a"):
        farm.finish(job)
    for _ in range(3):
        farm.sweep()
    while deliver_due(farm.store, farm.settings):
        pass
    messages = [Verifier(hook["secret"]).verify(body, headers) for headers, body in receiver.got]
    assert sorted(message["type"] for message in messages) == ["batch.done", "job.succeeded", "job.succeeded"]
    (done,) = [message for message in messages if message["type"] == "batch.done"]
    assert done["data"]["id"] == batch != early
    assert deliver_due(farm.store, farm.settings) == 0
    listed = farm.client.get(f"{HOOKS}/{hook['id']}/deliveries", query_string={"state": "delivered"}).json or {}
    assert len(listed["items"]) == 3
    assert {item["status"] for item in listed["items"]} == {200}
    assert (farm.client.get(HOOKS).json or {})["items"][0]["secret"] is None
    farm.check_books()


def test_a_refused_message_is_tried_again_then_dead_then_replayed(farm: BulkFarm, receiver: Receiver) -> None:
    hook = register(farm, receiver, "job.cancelled")
    (job,) = farm.submit(1)
    farm.client.post(f"/api/v1/jobs/{job}/cancel")
    farm.sweep()
    receiver.status = 500
    assert deliver_due(farm.store, farm.settings) == 1
    assert deliver_due(farm.store, farm.settings) == 0  # it backs off
    for _ in BACKOFF_S:
        make_due(farm)
        assert deliver_due(farm.store, farm.settings) == 1
    make_due(farm)
    assert deliver_due(farm.store, farm.settings) == 0
    (dead,) = (farm.client.get(f"{HOOKS}/{hook['id']}/deliveries").json or {})["items"]
    assert (dead["state"], dead["tries"], dead["status"], dead["error"]) == ("dead", 9, 500, "it answered 500")
    receiver.status = 204
    replayed = farm.client.post(f"{HOOKS}/{hook['id']}/deliveries/{dead['id']}/replay")
    assert replayed.status_code == 202
    assert deliver_due(farm.store, farm.settings) == 1
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    (item,) = (farm.client.get(f"{HOOKS}/{hook['id']}/deliveries").json or {})["items"]
    assert item["state"] == "delivered"


def test_a_redirect_is_no_delivery_and_410_ends_it(farm: BulkFarm, receiver: Receiver) -> None:
    hook = register(farm, receiver, "job.cancelled")
    for status in (302, 410):
        receiver.status = status
        (job,) = farm.submit(1)
        farm.client.post(f"/api/v1/jobs/{job}/cancel")
        farm.sweep()
        deliver_due(farm.store, farm.settings)
    assert [json.loads(body)["type"] for _, body in receiver.got] == ["job.cancelled"] * 2
    with farm.store.read() as session:
        assert session.scalars(select(WebhookDelivery.state).order_by(WebhookDelivery.id)).all() == ["waiting", "dead"]
        assert session.get_one(Webhook, hook["id"]).disabled_at is not None


def test_only_its_subject_its_tenant_and_while_it_stands(
    farm: BulkFarm, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = farm.batch("prompt\nmug\n", canary=0)["id"]
    hook = register(farm, receiver, "batch.cancelled", subject=batch)
    other = farm.batch("prompt\ncup\n")["id"]
    farm.act(other, "cancel")
    farm.act(batch, "cancel")
    farm.sweep()
    with farm.store.read() as session:
        bodies = [json.loads(body) for body in session.scalars(select(WebhookDelivery.body))]
    assert [body["data"]["id"] for body in bodies] == [batch]
    assert farm.client.post(HOOKS, json={"url": receiver.url, "kinds": ["job.failed"], "subject": "batch_x"}).status_code == 404
    assert farm.app is not None
    with monkeypatch.context() as patch:
        patch.setattr(app_context_of(farm.app).settings, "auth", "keys")
        headers = {"Authorization": f"Bearer {create_key(farm.store, name='k', tenant='other').key}"}
        assert farm.client.delete(f"{HOOKS}/{hook['id']}", headers=headers).status_code == 404
        assert farm.client.get(f"{HOOKS}/{hook['id']}/deliveries", headers=headers).status_code == 404
        assert (farm.client.get(HOOKS, headers=headers).json or {})["items"] == []
        body = {"url": receiver.url, "kinds": ["batch.done"], "subject": batch}
        assert farm.client.post(HOOKS, json=body, headers=headers).status_code == 404
    assert farm.client.delete(f"{HOOKS}/{hook['id']}").status_code == 204
    deliver_due(farm.store, farm.settings)
    assert receiver.got == []


INSIDE = [
    "http://127.0.0.1/x",
    "http://localhost/x",
    "http://2130706433/x",
    "http://0x7f000001/x",
    "http://0177.0.0.1/x",
    "http://0/x",
    "http://10.1.2.3/x",
    "http://192.168.1.1:8000/x",
    "http://169.254.169.254/latest/meta-data",
    "http://[::1]/x",
    "http://[::ffff:127.0.0.1]/x",
    "http://[64:ff9b::7f00:1]/x",
    "http://[2002:7f00:1::]/x",
    "http://[fe80::1]/x",
    "http://[fc00::1]/x",
    "http://224.0.0.1/x",
]


@pytest.mark.parametrize(
    "url", [*INSIDE, "ftp://example.com/x", "file:///etc/passwd", "http://u:p@8.8.8.8/", "http:///x", "http://8.8.8.8:99999/"]
)
def test_addresses_inside_are_refused(shared_farm: BulkFarm, url: str) -> None:
    response = shared_farm.client.post(HOOKS, json={"url": url, "kinds": ["job.failed"]})
    assert response.status_code == 422, response.text
    assert (response.json or {})["errors"][0]["field"] == "url"


def test_a_name_that_answers_otherwise_the_next_time_changes_nothing(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to the address that was checked, whatever the name says now."""
    answers = iter(["8.8.8.8", "127.0.0.1"])
    asked = []

    def rebinding(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    target = check_url("http://rebind.example/hook", allow_private=False)
    assert target.address == "8.8.8.8"
    with pytest.raises(InvalidRequest, match="not public"):
        check_url("http://rebind.example/hook", allow_private=False)
    assert asked == ["rebind.example"] * 2


def test_the_checked_address_is_asked_by_the_urls_name(receiver: Receiver) -> None:
    target = check_url(receiver.url.replace("127.0.0.1", "localhost"), allow_private=True)
    assert fetch(target, "POST", content=b"{}").status == 200
    assert receiver.got[0][0]["Host"].startswith("localhost:")


def test_a_large_answer_is_cut(receiver: Receiver) -> None:
    with pytest.raises(FetchFailed, match="larger than"):
        fetch(check_url(receiver.url, allow_private=True), max_bytes=100_000)


def test_nobody_there(receiver: Receiver) -> None:
    target = check_url(receiver.url, allow_private=True)
    receiver.server.shutdown()
    receiver.server.server_close()
    with pytest.raises(FetchFailed, match="ConnectError"):
        fetch(target, "POST")


def test_public_addresses() -> None:
    assert is_public(ipaddress.ip_address("93.184.216.34"))
    assert is_public(ipaddress.ip_address("2606:2800:220:1::1"))
    assert not is_public(ipaddress.ip_address("100.64.0.1"))


def test_a_sender_that_died_is_followed_by_another(farm: BulkFarm, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    register(farm, receiver, "job.cancelled")
    (job,) = farm.submit(1)
    farm.client.post(f"/api/v1/jobs/{job}/cancel")
    farm.sweep()

    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(webhooks, "_deliver", die)
        with pytest.raises(Killed):
            deliver_due(farm.store, farm.settings)
    assert deliver_due(farm.store, farm.settings) == 0
    make_due(farm)
    assert deliver_due(farm.store, farm.settings) == 1
    assert len(receiver.got) == 1
