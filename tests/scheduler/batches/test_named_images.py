"""Tables that name pictures: in a ZIP beside the table, as assets, by URL. Stored once and only if the table is accepted."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
from functools import cache
from typing import Any

import pytest
from sqlalchemy import func, select, update
from werkzeug.test import TestResponse

from api.http.context import app_context_of
from imagefarm.output_store import LocalOutputStore
from imagefarm.store.models import Asset, AssetUse, Batch, Job
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
def test_a_picture_that_is_not_available(shared_farm: BulkFarm, cell: str, says: str) -> None:
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
def test_an_invalid_zip(shared_farm: BulkFarm, archive: bytes, says: str) -> None:
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
