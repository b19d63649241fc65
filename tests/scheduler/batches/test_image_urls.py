"""Images that tables and jobs name by URL: fetched once, from public addresses only, with bounds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import select

from api.http.context import app_context_of
from imagefarm.errors import InvalidRequest
from imagefarm.store.models import Asset
from scheduler.assets.safe_fetch import ascii_url, check_url
from tests.scheduler.batches.conftest import BulkFarm
from tests.scheduler.batches.test_assets import ASSETS, bomb, picture
from tests.scheduler.batches.test_named_images import (
    MODEL,
    begun_from,
    numbers,
    refused,
)


class Shop:
    """A real HTTP server with pictures, and some bad manners."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.busy: list[tuple[int, str | None]] = []
        """What it answers first: a status and Retry-After."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers["Host"]))
                what = self.path.partition("?")[0].strip("/")
                if what == "slow":
                    for _ in range(100):
                        self.wfile.write(b"H")
                        time.sleep(0.05)
                    return
                if outer.busy:
                    status, retry_after = outer.busy.pop(0)
                    self.send_response(status)
                    if retry_after is not None:
                        self.send_header("Retry-After", retry_after)
                    self.end_headers()
                    return
                if what == "page":
                    self.send_response(200)
                    self.send_header("Content-Type", "text/html; charset=utf-8")
                    self.end_headers()
                    self.wfile.write(b"<!DOCTYPE html><html><title> Sign in\n&ndash; Shop</title>")
                    return
                self.send_response(302 if what == "moved" else 404 if what == "none" else 200)
                self.send_header("Location", "http://127.0.0.1:1/other")
                self.end_headers()
                if what.endswith(".png"):
                    self.wfile.write(picture(what.removesuffix(".png").rpartition("/")[2]))
                else:
                    self.wfile.write({"text": b"hello", "bomb": bomb(), "large": b"\x00" * 500_000}.get(what, b""))

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.server.shutdown()
    shop.server.server_close()


@pytest.fixture
def open_farm(quick_farm: BulkFarm) -> BulkFarm:
    """A farm that may reach private addresses, as in an intranet."""
    assert quick_farm.app is not None
    app_context_of(quick_farm.app).settings.allow_private_urls = True
    return quick_farm


def test_pictures_by_url(open_farm: BulkFarm, shop: Shop) -> None:
    cells = [f"{shop.url}/{color}.png?token=secret" for color in ("red", "blue", "red")]
    response = open_farm.send("prompt,image\n" + "".join(f"mug,{cell}\n" for cell in cells), model=MODEL)
    assert response.status_code == 202, response.text
    assert begun_from(open_farm, (response.json or {})["id"]) == ["red.png", "blue.png", "red.png"]
    assert len(shop.asked) == 2  # each once
    with open_farm.store.read() as session:
        assert "secret" not in str(session.scalars(select(Asset.name)).all())


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("moved", "leads elsewhere"),
        ("none", "answered 404"),
        ("text", "not a PNG"),
        ("bomb", "pixels"),
        ("large", "larger than 200000 bytes"),
        ("slow", "no complete response within"),
    ],
)
def test_a_url_with_bad_manners(open_farm: BulkFarm, shop: Shop, monkeypatch: pytest.MonkeyPatch, what: str, says: str) -> None:
    assert open_farm.app is not None
    monkeypatch.setattr(app_context_of(open_farm.app).settings, "max_asset_bytes", 200_000)
    if what == "slow":
        monkeypatch.setattr(app_context_of(open_farm.app).settings, "fetch_timeout_s", 0.5)
    refused(open_farm.send(f"prompt,image\nmug,{shop.url}/{what}\n", model=MODEL), "init_image", says)
    assert numbers(open_farm) == (0, 0, 0, 0)
    assert len(shop.asked) == 1


def test_a_name_that_leads_elsewhere_the_next_time(quick_farm: BulkFarm, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebinding: the name was public when it was checked; whatever it says later, the connection goes where was checked."""
    asked = []

    def rebinding(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        address = "8.8.8.8" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    tried = []

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> Any:
        tried.append(address[0])
        raise OSError("no way out of this test")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "create_connection", connect)
    cell = shop.url.replace("127.0.0.1", "rebind.example")
    refused(quick_farm.send(f"prompt,image\nmug,{cell}/red.png\n", model=MODEL), "init_image", "cannot be fetched")
    assert (asked, tried, shop.asked) == (["rebind.example"], ["8.8.8.8"], [])


def test_a_single_jobs_picture_by_url(open_farm: BulkFarm, shop: Shop) -> None:
    body = {"prompt": "mug", "model": MODEL, "init_image": f"{shop.url}/red.png"}
    first = open_farm.client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
    assert first.status_code == 202, first.text
    asset = (first.json or {})["recipe"]["init_image"]
    assert open_farm.client.get(f"{ASSETS}/{asset}/file").data == picture("red")
    again = open_farm.client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
    assert again.json == first.json
    assert len(shop.asked) == 1
    for changes, says in (
        ({"init_image": f"{shop.url}/moved"}, "leads elsewhere"),
        ({"init_image": "ftp://example.com/a.png"}, "init_image"),
        ({"steps": 150}, "steps"),
        ({"model": "sd-turbo"}, "text only"),
    ):
        refusal = open_farm.client.post("/api/v1/jobs", json=body | changes)
        assert refusal.status_code == 422
        assert says in refusal.text
    assert len(shop.asked) == 2  # only the one that leads elsewhere
    assert numbers(open_farm) == (0, 1, 1, 1)


def test_a_single_job_reaches_no_address_inside(quick_farm: BulkFarm, shop: Shop) -> None:
    body = {"prompt": "mug", "model": MODEL, "init_image": f"{shop.url}/red.png"}
    refused(quick_farm.client.post("/api/v1/jobs", json=body), "init_image", "not public", None)
    assert shop.asked == []


def test_urls_have_a_limit(open_farm: BulkFarm, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.assets.named_images.MAX_URLS", 2)
    table = "prompt,image\n" + "".join(f"mug,{shop.url}/red.png?{n}\n" for n in range(4))
    response = open_farm.send(table, model=MODEL)
    assert response.status_code == 422
    assert len(shop.asked) == 2
    assert "2 URLs" in response.text


def test_urls_in_any_script(open_farm: BulkFarm, shop: Shop) -> None:
    response = open_farm.send(f"prompt,image\nmug,{shop.url}/照片 1/red.png\ncup,{shop.url}/50%/a%20b/blue.png\n", model=MODEL)
    assert response.status_code == 202, response.text
    assert sorted(path for path, _ in shop.asked) == ["/%E7%85%A7%E7%89%87%201/red.png", "/50%/a%20b/blue.png"]
    body = {"prompt": "mug", "model": MODEL, "init_image": f"{shop.url}/红/red.png"}
    assert open_farm.client.post("/api/v1/jobs", json=body).status_code == 202


def test_a_host_in_any_script_is_written_in_idna() -> None:
    assert ascii_url("https://bücher.example:8443/a") == "https://xn--bcher-kva.example:8443/a"
    assert ascii_url("https://例え.テスト/図.png?q=図") == "https://xn--r8jz45g.xn--zckzah/%E5%9B%B3.png?q=%E5%9B%B3"
    assert ascii_url("https://faß.example/") == "https://xn--fa-hia.example/"  # not fass.example, another host
    with pytest.raises(InvalidRequest):
        check_url("https://exa\u200bmple\u202e.com/", allow_private=False)


def test_a_busy_server_is_asked_three_times(open_farm: BulkFarm, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("scheduler.assets.safe_fetch.time.sleep", waits.append)
    shop.busy = [(429, "3"), (503, None)]
    assert open_farm.send(f"prompt,image\nmug,{shop.url}/red.png\n", model=MODEL).status_code == 202
    assert [wait for wait in waits if wait in {3.0, 1.0}] == [3.0, 1.0]
    shop.busy = [(429, "3600")]
    refused(open_farm.send(f"prompt,image\nmug,{shop.url}/blue.png\n", model=MODEL), "init_image", "asks to wait 3600 s")
    assert 3600 not in waits
    shop.busy = [(503, "0")] * 3
    refused(open_farm.send(f"prompt,image\nmug,{shop.url}/green.png\n", model=MODEL), "init_image", "it answered 503")
    assert len(shop.asked) == 3 + 1 + 3


def test_a_page_instead_of_a_picture_says_what_came(open_farm: BulkFarm, shop: Shop) -> None:
    response = open_farm.send(f"prompt,image\nmug,{shop.url}/page\n", model=MODEL)
    refused(response, "init_image", "web page ('Sign in – Shop'), not a picture give the URL of the picture itself")
