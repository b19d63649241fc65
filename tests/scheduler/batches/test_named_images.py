"""Tables that name pictures: in a ZIP beside the table, as assets, by URL. Stored once and only if the table is accepted."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import struct
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import func, select, update
from werkzeug.test import TestResponse

from api.http.context import app_context_of
from imagefarm.errors import InvalidRequest
from imagefarm.output_store import LocalOutputStore
from imagefarm.store.models import Asset, AssetUse, Batch, Job
from scheduler.assets.safe_fetch import ascii_url, check_url
from scheduler.recovery.unused_assets import collect_unused_assets
from tests.scheduler.batches.conftest import BATCHES, BulkFarm
from tests.scheduler.batches.test_assets import ASSETS, bomb, picture, zipped

MODEL = "z-image-turbo"
"""A model that takes pictures."""


def send(farm: BulkFarm, table: str, archive: bytes | None = None, name: str = "table.csv", **fields: str) -> TestResponse:
    """Submit a form with a table and, perhaps, a ZIP of its pictures."""
    form: dict[str, Any] = {"file": (io.BytesIO(table.encode()), name), "model": MODEL, **fields}
    if archive is not None:
        form["archive"] = (io.BytesIO(archive), "pictures.zip")
    return farm.client.post(BATCHES, data=form)


def numbers(farm: BulkFarm) -> tuple[int, ...]:
    with farm.store.read() as session:
        return tuple(session.scalar(select(func.count()).select_from(table)) or 0 for table in (Batch, Job, Asset, AssetUse))


def begun_from(farm: BulkFarm, batch_id: str) -> list[str | None]:
    """The name of the picture that each job begins from."""
    with farm.store.read() as session:
        names = dict(session.execute(select(Asset.id, Asset.name)).all())
        recipes = session.scalars(select(Job.recipe).where(Job.batch_id == batch_id).order_by(Job.id)).all()
    return [names[recipe["init_image"]] if recipe["init_image"] else None for recipe in recipes]


def test_pictures_in_a_zip_beside_the_table(farm: BulkFarm) -> None:
    turned = picture("green", kind="JPEG", orientation=6)
    archive = zipped({"photos/a.png": picture("red"), "photos/b.jpg": turned, "more/a.png": picture("red"), "not.txt": b"x"})
    table = "sku,prompt,image\nA,mug,photos/a.png\nB,cup,.\\photos\\b.jpg\nC,bowl,more/a.png\nD,dish,\nE,plate,photos/a.png\n"
    dry = send(farm, table, archive, dry_run="true")
    assert dry.status_code == 200, dry.text
    assert numbers(farm) == (0, 0, 0, 0)
    response = send(farm, table, archive)
    assert response.status_code == 202, response.text
    batch = (response.json or {})["id"]
    # the same bytes at two paths are one picture
    assert begun_from(farm, batch) == ["photos/a.png", ".\\photos\\b.jpg", "photos/a.png", None, "photos/a.png"]
    assert numbers(farm) == (1, 5, 2, 4)
    with farm.store.read() as session:
        assets = {asset.name: asset for asset in session.scalars(select(Asset))}
    outputs = LocalOutputStore(farm.settings.outputs)
    assert outputs.read(assets["photos/a.png"].storage_key) == picture("red")
    lying = assets[".\\photos\\b.jpg"]
    assert (lying.width, lying.height, lying.format) == (20, 40, "png")
    again = send(farm, table, archive)
    assert again.status_code == 202
    assert numbers(farm) == (2, 10, 2, 8)


def test_the_zip_may_have_come_before(quick_farm: BulkFarm) -> None:
    archive = zipped({"p/a.png": picture("red"), "p/b.png": picture("blue")})
    sent = quick_farm.client.post(ASSETS, data=archive, content_type="application/zip")
    one = (sent.json or {})["items"][0]["id"]
    response = send(quick_farm, f"prompt,image\nmug,{one}\ncup,p/b.png\nbowl,p/c.png\n", zipped({"p/c.png": picture("green")}))
    assert response.status_code == 202, response.text
    assert begun_from(quick_farm, (response.json or {})["id"]) == ["p/a.png", "p/b.png", "p/c.png"]


def test_json_lines_and_defaults_name_pictures_too(quick_farm: BulkFarm) -> None:
    archive = zipped({"a.png": picture("red"), "b.png": picture("blue")})
    lines = json.dumps({"prompt": "mug"}) + "\n" + json.dumps({"prompt": "cup", "image": "b.png"})
    response = send(quick_farm, lines, archive, "table.jsonl")
    assert begun_from(quick_farm, (response.json or {})["id"]) == [None, "b.png"]
    quick_farm.client.post(ASSETS, data=archive, content_type="application/zip")
    body = {"rows": [{"prompt": "mug"}, {"prompt": "cup", "image": "b.png"}], "defaults": {"init_image": "a.png", "model": MODEL}}
    response = quick_farm.client.post(BATCHES, json=body)
    assert begun_from(quick_farm, (response.json or {})["id"]) == ["a.png", "b.png"]


def test_masks_go_with_their_pictures(quick_farm: BulkFarm) -> None:
    files = {"a.png": picture("red"), "m.png": picture("white"), "s.png": picture("white", (8, 8))}
    response = send(quick_farm, "prompt,image,Mask\nmug,a.png,m.png\ncup,a.png,\n", zipped(files))
    assert response.status_code == 202, response.text
    with quick_farm.store.read() as session:
        names = dict(session.execute(select(Asset.id, Asset.name)).all())
        recipes = session.scalars(select(Job.recipe).order_by(Job.id)).all()
        assert session.scalar(select(func.count()).select_from(AssetUse)) == 3
    assert [names.get(recipe["mask"]) for recipe in recipes] == ["m.png", None]
    refused(send(quick_farm, "prompt,image,mask\nmug,a.png,s.png\n", zipped(files)), "mask", "8x8 pixels, its init_image 40x20")
    refused(send(quick_farm, "prompt,mask\nmug,m.png\n", zipped(files)), "mask", "needs an init_image")
    refused(send(quick_farm, "prompt,image,mask\nmug,a.png,none.png\n", zipped(files)), "mask", "neither the ZIP nor")
    assert numbers(quick_farm) == (1, 2, 2, 3)


def test_subjects_with_and_without_a_photo(quick_farm: BulkFarm) -> None:
    files = {
        "a.png": picture("red"),
        "b.jpg": picture("blue", kind="JPEG"),
        "m.png": picture("white"),
        "s.png": picture("white", (8, 8)),
    }
    table = "sku,prompt,subject,mask\nA,mug,a.png,\nB,cup,b.jpg,white\nC,bowl,,\nD,dish,a.png,m.png\n"
    body = {"file": (io.BytesIO(table.encode()), "t.csv"), "archive": (io.BytesIO(zipped(files)), "p.zip")}
    response = quick_farm.client.post(
        BATCHES, data=body, query_string={"subject": json.dumps({"shadow": 0.5, "place": {"y": 0.6}})}
    )
    assert response.status_code == 202, response.text
    with quick_farm.store.read() as session:
        names = dict(session.execute(select(Asset.id, Asset.name)).all())
        recipes = session.scalars(select(Job.recipe).order_by(Job.id)).all()
    subjects = [recipe["subject"] for recipe in recipes]
    assert [subject and (names[subject["image"]], names.get(subject["mask"], subject["mask"])) for subject in subjects] == [
        ("a.png", "alpha"),
        ("b.jpg", "white"),
        None,
        ("a.png", "m.png"),
    ]
    assert (subjects[0]["shadow"], subjects[0]["place"]["y"]) == (0.5, 0.6)
    refused(send(quick_farm, "prompt,subject,mask\nmug,a.png,s.png\n", zipped(files), model="demo"), "subject.mask", "8x8 pixels")
    refused(send(quick_farm, "prompt,subject\nmug,none.png\n", zipped(files), model="demo"), "subject", "neither the ZIP")
    lines = json.dumps({"prompt": "mug", "subject": {"image": "a.png", "shadow": 9}})
    refused(send(quick_farm, lines, zipped(files), "t.jsonl", model="demo"), "subject.shadow", "less than or equal")


def test_names_as_macos_packs_them(quick_farm: BulkFarm) -> None:
    response = send(quick_farm, "prompt,image\nmug,caf\u00e9.png\n", zipped({"cafe\u0301.png": picture("red")}))
    assert response.status_code == 202, response.text


def raw_zip(name: bytes, data: bytes) -> bytes:
    """A ZIP as an old Windows writes it: the name in the system's code page, and no mark that says so."""
    import zlib

    head = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0x21, zlib.crc32(data), len(data), len(data), len(name), 0)
    local = b"PK\x03\x04" + head + name + data
    entry = b"PK\x01\x02" + struct.pack("<H", 20) + head + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    return local + entry + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(local), 0)


@pytest.mark.parametrize("codec", ["gb18030", "utf-8"])
def test_names_in_the_code_page_of_the_system_that_packed_them(quick_farm: BulkFarm, codec: str) -> None:
    response = send(quick_farm, "prompt,image\nmug,图片/红色.png\n", raw_zip("图片/红色.png".encode(codec), picture()))
    assert response.status_code == 202, response.text


def refused(response: TestResponse, field: str, says: str, row: int | None = 1) -> None:
    assert response.status_code == 422, response.text
    error = (response.json or {})["errors"][0]
    assert (error["field"], error.get("row")) == (field, row), response.text
    assert says in f"{error['detail']} {error['remedy']}", response.text
    assert error["remedy"]


def overlapping() -> bytes:
    """A ZIP whose central directory says that there is more of it than there is."""
    data = bytearray(zipped({"a.png": picture()}))
    end = data.rfind(b"PK\x05\x06")
    data[end + 12 : end + 16] = (64 * 1024 * 1024).to_bytes(4, "little")
    return bytes(data)


@cache
def links() -> bytes:
    """A ZIP of what should not be in one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("a.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../b.png", picture())
        archive.writestr("/etc/c.png", picture())
        archive.writestr("C:\\d.png", picture())
        archive.writestr("e.png", b"<svg/>")
        archive.writestr("f.png", bomb())
        archive.writestr("g.png", picture()[:60])
        archive.writestr("h.png", picture(), zipfile.ZIP_LZMA)
        archive.writestr("deep/i.PNG", picture())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("a.png", "a link"),
        ("../b.png", "leads out of"),
        ("/etc/c.png", "leads out of"),
        ("C:/d.png", "leads out of"),
        ("e.png", "is not a PNG"),
        ("f.png", "pixels"),
        ("g.png", "cannot be decoded"),
        ("h.png", "unsupported way"),
        ("i.png", "you meant 'deep/i.PNG'"),
        ("../../../etc/passwd", "neither the ZIP nor your assets"),
        ("/etc/passwd", "neither the ZIP nor your assets"),
        ("asset_01JD0000000000000000000000", "no asset"),
        ("x" * 60_000, "neither the ZIP nor your assets"),
        ("http://127.0.0.1/a.png", "not public"),
        ("http://localhost/a.png", "not public"),
        ("http://2130706433/a.png", "not public"),
        ("http://0x7f.1/a.png", "not public"),
        ("http://[::1]/a.png", "not public"),
        ("http://[::ffff:10.0.0.1]/a.png", "not public"),
        ("http://169.254.169.254/latest/meta-data", "not public"),
        ("https://user:secret@8.8.8.8/a.png", "user name"),
        ("file:///etc/passwd", "not an http"),
        ("gopher://8.8.8.8/", "not an http"),
        ("http://nobody.invalid/a.png", "no address"),
        ("http://8.8.8.8:99999/a.png", "not a URL"),
    ],
)
def test_a_picture_that_is_not_to_be_had(shared_farm: BulkFarm, cell: str, says: str) -> None:
    before = numbers(shared_farm)
    refused(send(shared_farm, f"prompt,image\nmug,{cell}\n", links()), "init_image", says)
    assert numbers(shared_farm) == before


@pytest.mark.parametrize(
    ("archive", "says"),
    [
        (b"", "no end"),
        (b"PK\x03\x04broken", "no end"),
        (zipped({"a.png": picture()})[:-10], "no end"),
        (overlapping(), "too many files"),
        (picture(), "no end"),
        (zipped({f"{n}.png": b"" for n in range(20_001)}), "20001 files"),
    ],
)
def test_a_zip_that_is_none(shared_farm: BulkFarm, archive: bytes, says: str) -> None:
    before = numbers(shared_farm)
    refused(send(shared_farm, "prompt,image\nmug,a.png\n", archive), "archive", says, None)
    assert numbers(shared_farm) == before


def test_a_zip_that_unpacks_without_end(shared_farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared_farm.app is not None
    settings = app_context_of(shared_farm.app).settings
    monkeypatch.setattr(settings, "max_asset_bytes", 100_000)
    table = "prompt,image\n" + "".join(f"mug,{n}.png\n" for n in range(9))
    refused(
        send(shared_farm, table, zipped({f"{n}.png": b"\x00" * 5_000_000 for n in range(9)})),
        "init_image",
        "more than 100000 bytes",
    )
    monkeypatch.setattr(settings, "max_table_bytes", 300_000)
    many = zipped({f"{n}.png": picture("red", (n + 1, 9)) + b"\x00" * 90_000 for n in range(9)})
    refused(send(shared_farm, table, many), "archive", "unpacks to more than", 4)


def test_other_files_and_two_zips(shared_farm: BulkFarm) -> None:
    form = {"file": (io.BytesIO(b"prompt\nmug\n"), "t.csv"), "photos": (io.BytesIO(b"x"), "p.zip")}
    refused(shared_farm.client.post(BATCHES, data=form), "photos", "`archive`", None)
    two = {"file": (io.BytesIO(b"prompt\nmug\n"), "t.csv"), "archive": [(io.BytesIO(zipped({})), f"{n}.zip") for n in "ab"]}
    refused(shared_farm.client.post(BATCHES, data=two), "archive", "one ZIP", None)


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


def test_unused_pictures_are_collected(farm: BulkFarm) -> None:
    retention_s = 1000.0
    used = send(farm, "prompt,image\nmug,a.png\n", zipped({"a.png": picture("red")}))
    assert used.status_code == 202
    for color in ("blue", "green"):
        farm.client.post(ASSETS, data=picture(color), content_type="image/png", query_string={"name": color})
    outputs = LocalOutputStore(farm.settings.outputs)
    with farm.store.write() as session:
        session.execute(update(Asset).values(created_at=1.0, used_at=None))
        keys = dict(session.execute(select(Asset.name, Asset.storage_key)).all())
    farm.client.post(ASSETS, data=picture("green"), content_type="image/png")  # sent in again: wanted
    orphan = "assets/00/tenant_default/" + "0" * 64 + ".png"
    outputs.write(orphan, b"x")
    os.utime(outputs.path(orphan), (1.0, 1.0))
    assert collect_unused_assets(farm.store, outputs, retention_s, 300.0) == 2
    with farm.store.read() as session:
        assert sorted(session.scalars(select(Asset.name))) == ["a.png", "green"]
    assert [outputs.path(keys[name]).exists() for name in ("a.png", "green", "blue")] == [True, True, False]
    assert not outputs.path(orphan).exists()
    again = farm.client.post(ASSETS, data=picture("blue"), content_type="image/png")
    assert (again.json or {})["stored"] == 1
    outputs.delete(keys["green"])  # lost: made good when the picture comes again
    farm.client.post(ASSETS, data=picture("green"), content_type="image/png")
    assert outputs.path(keys["green"]).exists()
    farm.check_books()


def test_the_same_picture_stored_meanwhile(quick_farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    from scheduler.assets.named_images import NamedImages

    real = NamedImages.save

    def late(self: NamedImages, outputs: Any) -> None:
        quick_farm.client.post(ASSETS, data=picture("red"), content_type="image/png")
        real(self, outputs)

    with monkeypatch.context() as patch:
        patch.setattr(NamedImages, "save", late)
        response = send(quick_farm, "prompt,image\nmug,a.png\n", zipped({"a.png": picture("red")}))
    assert response.status_code == 503
    assert numbers(quick_farm)[:2] == (0, 0)
    assert send(quick_farm, "prompt,image\nmug,a.png\n", zipped({"a.png": picture("red")})).status_code == 202


def test_a_table_takes_the_picture_that_was_sent_last(farm: BulkFarm) -> None:
    first, second = picture("red"), picture("blue")
    for data in (first, second, first):
        farm.client.post(ASSETS, data=data, content_type="image/png", query_string={"name": "cover.png"})
    batch = (send(farm, "prompt,image\nmug,cover.png\n").json or {})["id"]
    assert colours(farm, batch) == ["red"]
    # a ZIP that comes with a table is an upload too
    send(farm, "prompt,image\nmug,cover.png\n", zipped({"cover.png": second}))
    assert colours(farm, (send(farm, "prompt,image\nmug,cover.png\n").json or {})["id"]) == ["blue"]
    both = zipped({"u\u0308ber.png": first, "copy.png": first})
    send(farm, "prompt,image\nmug,\u00fcber.png\ncup,copy.png\n", both)
    again = send(farm, "prompt,image\nmug,u\u0308ber.png\ncup,\u202acopy.png\n")
    assert colours(farm, (again.json or {})["id"]) == ["red", "red"]


def colours(farm: BulkFarm, batch_id: str) -> list[str]:
    """The colour of the picture that each job begins from."""
    known = {hashlib.sha256(picture(colour)).hexdigest(): colour for colour in ("red", "blue", "green")}
    with farm.store.read() as session:
        digests = dict(session.execute(select(Asset.id, Asset.sha256)).all())
        recipes = session.scalars(select(Job.recipe).where(Job.batch_id == batch_id).order_by(Job.id)).all()
    return [known[digests[recipe["init_image"]]] for recipe in recipes]


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
