"""Delivery to a bucket, against a real server of the S3 protocol in its own process: once, again, broken off, refused."""

from __future__ import annotations

import csv
import hashlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import httpx
import obstore
import pytest
from obstore.store import S3Store
from sqlalchemy import select, update

from api.http.context import app_context_of
from imagefarm import Client, cli
from imagefarm.auth import Scope, create_key
from imagefarm.cli import batch as batch_command
from imagefarm.cli import deliver as deliver_command
from imagefarm.cli import picks as picks_command
from imagefarm.logs import configure_logs
from imagefarm.output_store import LocalOutputStore
from imagefarm.settings import BucketSettings
from imagefarm.store.models import Batch, BatchDelivery, Event
from scheduler.batches.export import batch_delivery as batch_delivery_module
from scheduler.batches.export.batch_delivery import BACKOFF_S, upload_due
from scheduler.delivery import buckets
from tests.scheduler.batches.conftest import BATCHES, BulkFarm
from tests.scheduler.batches.test_downloads import render
from tests.scheduler.batches.test_picks import ask, decide, images
from tests.waiting import until

SECRET = "s3cret-of-the-operator"


@pytest.fixture(scope="session")
def s3(starts_process: None) -> Iterator[str]:
    """The address of a server of the S3 protocol."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        url = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            assert server.poll() is None
            with suppress(httpx.TransportError):
                return httpx.get(url, timeout=5).status_code < 500
            return False

        until(answers, "the S3 server answers", 60)
        yield url
        server.terminate()


@pytest.fixture
def shop(farm: BulkFarm, s3: str, tmp_path: Path) -> S3Store:
    """A bucket that the farm's settings know as `shop`, its keys in a file."""
    name = f"shop-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]}"
    assert httpx.put(f"{s3}/{name}").status_code == 200
    key_file = tmp_path / "keys.toml"
    key_file.write_text(f'access_key = "AKIAOPERATOR"\nsecret_key = "{SECRET}"\n')
    place = BucketSettings(url=f"s3://{name}/catalogues/", endpoint=s3, key_file=key_file)
    other = place.model_copy(update={"tenants": ["somebody"]})
    for settings in (farm.settings, api_settings(farm)):
        settings.buckets = {"shop": place, "private": other, "gone": place.model_copy(update={"url": "s3://no-such-bucket"})}
    return S3Store(
        name,
        endpoint=s3,
        region="us-east-1",
        access_key_id="any",
        secret_access_key="any",
        client_options={"allow_http": True},
    )


def api_settings(farm: BulkFarm) -> Any:
    assert farm.app is not None
    return app_context_of(farm.app).settings


def upload(farm: BulkFarm) -> int:
    """Upload all that is due; how many tries that took."""
    farm.sweep()
    tries = 0
    while upload_due(farm.store, farm.settings, LocalOutputStore(farm.settings.outputs)):
        tries += 1
    return tries


def delivery(farm: BulkFarm, batch: str) -> dict[str, Any]:
    return dict((farm.get(batch).json or {})["delivery"])


def files_in(store: S3Store) -> dict[str, bytes]:
    keys = [meta["path"] for page in obstore.list(store) for meta in page]
    return {key: bytes(obstore.get(store, key).bytes()) for key in keys}


def make_due(farm: BulkFarm) -> None:
    with farm.store.write() as session:
        session.execute(update(BatchDelivery).where(BatchDelivery.state == "waiting").values(next_at=0.0))


def test_a_batch_is_delivered_when_it_is_done_and_never_sent_twice(farm: BulkFarm, shop: S3Store) -> None:
    where = json.dumps({"bucket": "shop", "prefix": "spring/drafts"})
    batch = farm.batch("sku,prompt,count\nA,mug,1\nB,cup,2\n", deliver=where)["id"]
    assert (delivery(farm, batch)["state"], upload(farm)) == ("open", 0)
    made = render(farm)
    assert upload(farm) == 1
    told = delivery(farm, batch)
    assert (told["state"], told["files"], told["sent"], told["error"]) == ("delivered", 4, 4, None)
    there = files_in(shop)
    assert sorted(there) == [f"catalogues/spring/drafts/{name}" for name in ("A.png", "B-1.png", "B-2.png", "manifest.csv")]
    assert sorted(data for key, data in there.items() if key.endswith(".png")) == sorted(made.values())
    lines = list(csv.DictReader(there["catalogues/spring/drafts/manifest.csv"].decode("utf-8-sig").splitlines()))
    assert [line["file"] for line in lines] == ["A.png", "B-1.png", "B-2.png"]
    got = obstore.get(shop, "catalogues/spring/drafts/A.png")
    assert got.attributes["Content-Type"] == "image/png"
    # again: nothing is sent; one file that is not as it was: that one
    obstore.put(shop, "catalogues/spring/drafts/A.png", b"somebody else's")
    asked = farm.client.post(f"{BATCHES}/{batch}/deliver", json={"bucket": "shop", "prefix": "spring/drafts/"})
    assert asked.status_code == 202, asked.text
    assert upload(farm) == 1
    assert (delivery(farm, batch)["sent"], delivery(farm, batch)["files"]) == (1, 4)
    # a re-roll opens the batch again, and its replacement is delivered under the same name; the rejected one is not sent
    first = images(farm, batch)
    decide(farm, batch, reroll=first[0]["id"], reject=first[1]["id"])
    for job in farm.claim("wrk_a"):
        farm.settings.outputs.joinpath(f"{job.id}").mkdir(parents=True)
        farm.settings.outputs.joinpath(f"{job.id}/0-a1.png").write_bytes(b"again")
        farm.finish(job)
    assert upload(farm) == 1
    assert delivery(farm, batch)["files"] == 3
    assert files_in(shop)["catalogues/spring/drafts/A.png"] == b"again"
    with farm.store.read() as session:
        kinds = session.scalars(select(Event.kind).where(Event.subject == batch, Event.kind.like("batch.deliver%"))).all()
        assert kinds == ["batch.delivery", "batch.delivered", "batch.delivery", "batch.delivered", "batch.delivered"]
        rows = [str(row) for table in (Batch, BatchDelivery, Event) for row in session.execute(select(table.__table__))]  # type: ignore[var-annotated]
    assert not [row for row in rows if SECRET in row or "AKIAOPERATOR" in row]
    farm.check_books()


def test_an_upload_that_breaks_off_goes_on_where_it_was(farm: BulkFarm, shop: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = farm.batch("sku,prompt\nA,a\nB,b\nC,c\nD,d\n", deliver='{"bucket": "shop", "prefix": "x"}')["id"]
    render(farm)
    real, sent = buckets._S3.put, list[str]()

    def breaks(self: Any, key: str, *rest: Any) -> None:
        if len(sent) == 2:
            raise buckets.UploadError("the line is cut")
        sent.append(key)
        real(self, key, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(buckets._S3, "put", breaks)
        assert upload(farm) == 1
    told = delivery(farm, batch)
    assert (told["state"], told["files"], told["tries"], told["error"]) == ("waiting", 2, 1, "the line is cut")
    assert upload(farm) == 0  # it waits a little
    make_due(farm)
    assert upload(farm) == 1
    told = delivery(farm, batch)
    assert (told["state"], told["files"], told["sent"]) == ("delivered", 5, 3)


def test_what_a_bucket_refuses_is_tried_then_given_up_and_may_be_asked_anew(
    farm: BulkFarm, shop: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = farm.batch("sku,prompt\nA,a\n", deliver='{"bucket": "gone", "prefix": "x"}')["id"]
    render(farm)
    for _ in range(len(BACKOFF_S) + 1):
        assert upload(farm) == 1
        make_due(farm)
    told = delivery(farm, batch)
    assert (told["state"], told["tries"], told["error"]) == ("failed", len(BACKOFF_S) + 1, "there is no such bucket")
    assert upload(farm) == 0
    with farm.store.read() as session:
        assert session.scalars(select(Event.kind).where(Event.subject == batch)).all()[-1] == "batch.undelivered"
    farm.client.post(f"{BATCHES}/{batch}/deliver", json={"bucket": "shop", "prefix": "x"})
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "obstore.store", None)
        assert upload(farm) == 1
    assert delivery(farm, batch)["error"] == "delivery to buckets is not installed here: pip install 'imagefarm-server[bucket]'"
    (farm.settings.buckets["shop"].key_file or Path()).unlink()
    make_due(farm)
    upload(farm)
    assert "file of keys cannot be read" in delivery(farm, batch)["error"]


@pytest.mark.parametrize(
    ("deliver", "field"),
    [
        ({"bucket": "nope", "prefix": "x"}, "deliver.bucket"),
        ({"bucket": "private", "prefix": "x"}, "deliver.bucket"),
        ({"bucket": "shop", "prefix": "../x"}, "deliver.prefix"),
        ({"bucket": "shop", "prefix": "a/../b"}, "deliver.prefix"),
        ({"bucket": "shop", "prefix": "a//b"}, "deliver.prefix"),
        ({"bucket": "shop", "prefix": "/"}, "deliver.prefix"),
        ({"bucket": "shop"}, "deliver.prefix"),
        ({"bucket": "s3://x", "prefix": "x"}, "deliver.bucket"),
        ({"bucket": "shop", "prefix": "x", "endpoint": "http://evil"}, "deliver.endpoint"),
    ],
)
def test_only_where_the_operator_allows(farm: BulkFarm, shop: S3Store, deliver: dict[str, str], field: str) -> None:
    response = farm.send("sku,prompt\nA,a\n", deliver=json.dumps(deliver))
    assert response.status_code == 422, response.text
    assert (response.json or {})["errors"][0]["field"] == field
    assert "keys.toml" not in response.text
    assert "127.0.0.1" not in response.text


def test_a_tenant_delivers_what_is_its_own_where_it_may(farm: BulkFarm, shop: S3Store) -> None:
    farm.settings.auth = api_settings(farm).auth = "keys"

    def key(tenant: str, *scopes: Scope) -> dict[str, str]:
        return {"Authorization": f"Bearer {create_key(farm.store, name='x', tenant=tenant, scopes=scopes).key}"}

    both = (Scope.SUBMIT, Scope.READ)
    owner, stranger, reader = key("owner", *both), key("somebody", *both), key("owner", Scope.READ)
    admin = key("operators", Scope.FARM)
    mine = (farm.send("sku,prompt\nA,a\n", headers=owner).json or {})["id"]
    theirs = (farm.send("sku,prompt\nB,b\n", headers=stranger, deliver='{"bucket": "private", "prefix": "x"}').json or {})["id"]

    def ask_for(batch: str, bucket: str, headers: dict[str, str]) -> int:
        body = {"bucket": bucket, "prefix": "taken"}
        return farm.client.post(f"{BATCHES}/{batch}/deliver", json=body, headers=headers).status_code

    assert ask_for(mine, "shop", stranger) == 404, "another's batch does not exist"
    assert ask_for(mine, "shop", {}) == 401
    assert ask_for(mine, "shop", reader) == 403
    assert ask_for(mine, "private", owner) == 422, "that bucket is another's"
    assert ask_for(mine, "private", admin) == 422, "an admin takes a tenant's pictures nowhere that the tenant may not"
    with farm.store.read() as session:
        assert session.scalars(select(BatchDelivery.batch_id)).all() == [theirs], "a refused request left a row"
    assert ask_for(mine, "shop", owner) == 202
    assert farm.client.get(f"{BATCHES}/{mine}", headers=owner).json["delivery"]["prefix"] == "taken"  # type: ignore[index]
    assert farm.client.get(f"{BATCHES}/{mine}", headers=stranger).status_code == 404
    render(farm)
    assert upload(farm) == 2
    assert sorted(files_in(shop)) == [
        f"catalogues/{file}" for file in ("taken/A.png", "taken/manifest.csv", "x/B.png", "x/manifest.csv")
    ]
    with farm.store.read() as session:
        told = session.execute(select(Event.subject, Event.tenant_id).where(Event.kind == "batch.delivered")).all()
        tenants = dict(session.execute(select(Batch.id, Batch.tenant_id)).all())
    assert dict(told) == tenants, "a tenant's events are its own"


class UploadingTransport(httpx.WSGITransport):
    """Before it is asked how a batch is, the farm delivers what is due."""

    def __init__(self, farm: BulkFarm) -> None:
        super().__init__(app=farm.app)  # type: ignore[arg-type]
        self.farm = farm

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET" and request.url.path.startswith(f"{BATCHES}/batch_"):
            upload(self.farm)
        return super().handle_request(request)


def test_the_command_line_delivers(
    farm: BulkFarm, shop: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(farm.settings.model_copy(update={"log_level": "error"}), "api")  # not among what the commands say
    client = Client("http://127.0.0.1:8000", transport=UploadingTransport(farm))
    for module in (batch_command, deliver_command, picks_command):
        monkeypatch.setattr(module, "connect", lambda url, key: nullcontext(client))

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["imagefarm", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), *capsys.readouterr()

    table = tmp_path / "table.csv"
    table.write_text("sku,prompt\nA,a\nB,b\n")
    made = json.loads(run("batch", table, "--no-wait", "--deliver", "shop/drafts", "--json")[1])
    assert (made["delivery"]["bucket"], made["delivery"]["prefix"], made["delivery"]["state"]) == ("shop", "drafts", "open")
    batch = made["id"]
    code, out, _ = run("deliver", batch, "shop/elsewhere", "--no-wait")
    assert (code, out) == (0, f"{batch} queued: is delivered to shop/elsewhere when it is done\n")
    render(farm)
    code, out, _ = run("deliver", batch, "shop/spring/drafts")
    assert (code, out) == (0, f"{batch} done: 3 files are in shop/spring/drafts\n")
    assert sorted(files_in(shop))[-3:] == [f"catalogues/spring/drafts/{name}" for name in ("A.png", "B.png", "manifest.csv")]
    decide(farm, batch, approve=images(farm, batch)[0]["id"])
    finals = json.loads(run("finals", batch, "--size", "128x128", "--no-wait", "--deliver", "shop/finals", "--json")[1])
    assert finals["delivery"]["prefix"] == "finals"
    client.batches.cancel(finals["id"])
    assert client.batches.wait_delivery(finals["id"]).state == "cancelled", "a wait for a delivery that never comes would not end"
    monkeypatch.setattr(batch_delivery_module, "BACKOFF_S", ())
    code, out, err = run("deliver", batch, "gone/x")
    assert (code, out) == (1, f"{batch} done: not delivered to gone/x: there is no such bucket\n")
    assert err == "imagefarm: there is no such bucket\n"
    code, _, err = run("deliver", batch, "nope/x")
    assert code == 2
    assert "use one of gone, shop" in err
    for wrong in ("shop", "/x", "shop/"):
        code, _, err = run("deliver", batch, wrong)
        assert code == 2
        assert "BUCKET/FOLDER" in err


def test_finals_are_delivered_where_they_are_asked_to_be(farm: BulkFarm, shop: S3Store) -> None:
    batch = farm.batch("sku,prompt\nA,a\n")["id"]
    render(farm)
    decide(farm, batch, approve=images(farm, batch)[0]["id"])
    made = ask(farm, batch, deliver={"bucket": "shop", "prefix": "finals"})
    assert made["delivery"]["state"] == "open"
    render(farm)
    assert upload(farm) == 1
    assert sorted(files_in(shop)) == ["catalogues/finals/A.png", "catalogues/finals/manifest.csv"]
    assert ask(farm, batch, 422, deliver={"bucket": "nope", "prefix": "x"})["errors"][0]["field"] == "deliver.bucket"
