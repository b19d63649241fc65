"""Pictures that are sent in: stored once and upright, bounded, a tenant's own, and named by tables."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import delete, func, select

from api.http.context import app_context_of
from imagefarm.auth import create_key
from imagefarm.store.models import Asset, AssetName, Event, Job
from tests.scheduler.batches.conftest import BulkFarm

ASSETS = "/api/v1/assets"


def picture(color: str = "red", size: tuple[int, int] = (40, 20), kind: str = "PNG", orientation: int = 1) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, color).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_a_picture_is_stored_once(farm: BulkFarm) -> None:
    data = picture()
    first = farm.client.post(ASSETS, data=data, content_type="image/png", query_string={"name": "mug.png"})
    assert first.status_code == 201, first.text
    body = first.json or {}
    (item,) = body["items"]
    assert (body["stored"], item["name"], item["width"], item["height"], item["format"]) == (1, "mug.png", 40, 20, "png")
    again = farm.client.post(ASSETS, data={"file": (io.BytesIO(data), "other.png")})
    assert (again.json or {})["items"][0]["id"] == item["id"]
    assert (again.json or {})["stored"] == 0
    item["names"] = ["mug.png", "other.png"]
    assert farm.client.get(f"{ASSETS}/{item['id']}").json == item
    file = farm.client.get(f"{ASSETS}/{item['id']}/file")
    assert (file.data, file.mimetype) == (data, "image/png")
    assert [found["id"] for found in (farm.client.get(ASSETS).json or {})["items"]] == [item["id"]]


def test_a_picture_that_lies_is_turned(quick_farm: BulkFarm) -> None:
    response = quick_farm.client.post(ASSETS, data=picture(kind="JPEG", orientation=6), content_type="image/jpeg")
    (item,) = (response.json or {})["items"]
    assert (item["width"], item["height"], item["format"]) == (20, 40, "png")
    with Image.open(io.BytesIO(quick_farm.client.get(f"{ASSETS}/{item['id']}/file").data)) as stored:
        assert stored.size == (20, 40)
        assert stored.getexif().get(0x0112, 1) == 1


def test_a_zip_of_many(quick_farm: BulkFarm) -> None:
    files = {f"photos/{color}.png": picture(color) for color in ("red", "green", "blue")}
    files |= {"__MACOSX/._red.png": b"x", "../../etc/passwd": b"root", "note.txt": b"hello", "cut.png": picture()[:60]}
    response = quick_farm.client.post(ASSETS, data=zipped(files), content_type="application/zip")
    assert response.status_code == 201, response.text
    body = response.json or {}
    assert [item["name"] for item in body["items"]] == list(files)[:3]
    assert [error["field"] for error in body["errors"]] == ["../../etc/passwd", "note.txt", "cut.png"]
    assert all(error["detail"] and error["remedy"] for error in body["errors"])


@cache
def bomb() -> bytes:
    """Some kB of PNG that would be 400 megapixels."""
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("media", "data", "says"),
    [
        ("image/png", b"", "not a PNG"),
        ("image/png", b"<svg onload=alert(1)>", "not a PNG"),
        ("image/png", picture()[:-30], "cannot be decoded"),
        ("image/png", bomb(), "pixels"),
        ("image/png", b"\x89PNG\r\n\x1a\n" + b"\x00" * 1000, "cannot be decoded|not a PNG"),
        ("application/zip", b"PK\x03\x04broken", "cannot be read as a ZIP"),
        ("application/zip", zipped({"a.txt": b"x"}), "not a PNG"),
        ("application/zip", zipped({}), "no picture"),
        ("text/plain", b"x", "Content-Type"),
    ],
)
def test_what_is_no_picture_is_refused(shared_farm: BulkFarm, media: str, data: bytes, says: str) -> None:
    response = shared_farm.client.post(ASSETS, data=data, content_type=media)
    assert response.status_code in {415, 422}, response.text
    assert any(part in response.text for part in says.split("|")), response.text
    with shared_farm.store.read() as session:
        assert session.scalar(select(func.count()).select_from(Asset)) == 0


def test_a_zip_that_unpacks_without_end(shared_farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared_farm.app is not None
    settings = app_context_of(shared_farm.app).settings
    monkeypatch.setattr(settings, "max_asset_bytes", 100_000)
    one = shared_farm.client.post(ASSETS, data=zipped({"a.png": b"\x00" * 50_000_000}), content_type="application/zip")
    assert one.status_code == 422
    assert "more than 100000 bytes" in one.text
    monkeypatch.setattr(settings, "max_table_bytes", 300_000)
    many = zipped({f"{n}.png": b"\x00" * 90_000 for n in range(9)})
    response = shared_farm.client.post(ASSETS, data=many, content_type="application/zip")
    assert response.status_code == 422
    assert "unpacks to more than" in response.text


def test_tables_name_pictures(farm: BulkFarm) -> None:
    sent = farm.client.post(
        ASSETS, data=zipped({"p/a.png": picture("red"), "p/b.png": picture("blue")}), content_type="application/zip"
    )
    one, two = ((sent.json or {})["items"][n]["id"] for n in (0, 1))
    table = f"sku,prompt,image\nA,a mug,p/a.png\nB,a cup,{two}\nC,a bowl,\n"
    response = farm.batch(table, model="z-image-turbo")
    with farm.store.read() as session:
        recipes = session.scalars(select(Job.recipe).where(Job.batch_id == response["id"]).order_by(Job.id)).all()
    assert [recipe["init_image"] for recipe in recipes] == [one, two, None]
    missing = farm.send("sku,prompt,image\nA,a mug,p/c.png\n", model="z-image-turbo")
    assert missing.status_code == 422
    assert (missing.json or {})["errors"][0] | {"row": 1, "field": "init_image"} == (missing.json or {})["errors"][0]


def test_another_tenants_picture_does_not_exist(farm: BulkFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = farm.client.post(ASSETS, data=picture(), content_type="image/png", query_string={"name": "a.png"})
    asset = (sent.json or {})["items"][0]["id"]
    assert farm.app is not None
    monkeypatch.setattr(app_context_of(farm.app).settings, "auth", "keys")
    headers = {"Authorization": f"Bearer {create_key(farm.store, name='k', tenant='other').key}"}
    for path in (f"{ASSETS}/{asset}", f"{ASSETS}/{asset}/file"):
        assert farm.client.get(path, headers=headers).status_code == 404
    assert (farm.client.get(ASSETS, headers=headers).json or {})["items"] == []
    for name in (asset, "a.png"):
        response = farm.send(f"prompt,image\nmug,{name}\n", headers=headers, model="z-image-turbo")
        assert response.status_code == 422
        assert "no asset" in response.text
    own = farm.client.post(ASSETS, data=picture("blue"), content_type="image/png", headers=headers)
    mine = (own.json or {})["items"][0]["id"]
    for field in ("init_image", "mask"):
        body = {"prompt": "a mug", "init_image": mine, "mask": mine} | {field: asset}
        response = farm.client.post("/api/v1/jobs", json=body, headers=headers)
        assert response.status_code == 422
        assert [error["field"] for error in (response.json or {})["errors"]] == [field]
        table = farm.send(f"prompt,init_image,mask\nmug,{body['init_image']},{body['mask']}\n", headers=headers, model="demo")
        assert "no asset" in table.text


def test_a_mask_has_the_size_of_its_picture(quick_farm: BulkFarm) -> None:
    def send(color: str, size: tuple[int, int]) -> str:
        response = quick_farm.client.post(ASSETS, data=picture(color, size), content_type="image/png")
        return str((response.json or {})["items"][0]["id"])

    photo = send("green", (40, 20))
    for size, status in (((40, 20), 202), ((20, 40), 422)):
        body = {"prompt": "a mug", "init_image": photo, "mask": send("white", size)}
        response = quick_farm.client.post("/api/v1/jobs", json=body)
        assert response.status_code == status, response.text
    assert "send a mask of the picture's size" in response.text


def send(farm: BulkFarm, data: bytes, name: str) -> dict[str, Any]:
    response = farm.client.post(ASSETS, data=data, content_type="image/png", query_string={"name": name})
    assert response.status_code == 201, response.text
    (item,) = (response.json or {})["items"]
    return dict(item)


def meant(farm: BulkFarm, name: str) -> list[str]:
    """The assets that a name means."""
    return [item["id"] for item in (farm.client.get(ASSETS, query_string={"name": name}).json or {})["items"]]


def test_a_name_means_what_was_sent_under_it_last(farm: BulkFarm) -> None:
    first, second = picture("red"), picture("blue")
    one = send(farm, first, "cover.png")["id"]
    two = send(farm, second, "cover.png")["id"]
    assert meant(farm, "cover.png") == [two]
    again = send(farm, first, "cover.png")
    assert (again["id"], meant(farm, "cover.png")) == (one, [one])
    assert again["names"] == ["cover.png"]
    farm.client.post(ASSETS, data=zipped({"cover.png": second}), content_type="application/zip")
    assert meant(farm, "cover.png") == [two]


def test_equal_bytes_have_both_their_names(quick_farm: BulkFarm) -> None:
    data = picture()
    one = send(quick_farm, data, "front.png")
    other = send(quick_farm, data, "back.png")
    assert (one["id"], other["name"], other["names"]) == (other["id"], "back.png", ["back.png", "front.png"])
    assert meant(quick_farm, "front.png") == meant(quick_farm, "back.png") == [one["id"]]


def test_names_are_compared_as_people_see_them(quick_farm: BulkFarm) -> None:
    one = send(quick_farm, picture(), "u\u0308ber\u200b.png")["id"]  # as macOS writes it
    for name in ("\u00fcber.png", "u\u0308ber.png", "\u202a\u00fcber.png", ".\\\u00fcber.png"):
        assert meant(quick_farm, name) == [one]


def test_a_name_goes_with_its_asset(quick_farm: BulkFarm) -> None:
    one = send(quick_farm, picture(), "cover.png")["id"]
    with quick_farm.store.write() as session:
        session.execute(delete(Asset).where(Asset.id == one))
    with quick_farm.store.read() as session:
        assert session.scalar(select(func.count()).select_from(AssetName)) == 0


def test_what_was_converted_is_in_the_audit(quick_farm: BulkFarm) -> None:
    buffer = io.BytesIO()
    Image.frombytes("I;16", (2, 1), b"\x00\x00\xff\xff").save(buffer, "PNG")
    item = send(quick_farm, buffer.getvalue(), "depth.png")
    with quick_farm.store.read() as session:
        event = session.scalars(select(Event).where(Event.subject == item["id"])).one()
    assert event.data["changes"] == ["scaled to 8 bits"]
    with Image.open(io.BytesIO(quick_farm.client.get(f"{ASSETS}/{item['id']}/file").data)) as stored:
        assert (stored.mode, stored.getpixel((1, 0)), stored.info["srgb"]) == ("RGB", (255, 255, 255), 0)


def test_a_jpeg_of_many_pictures_is_taken(quick_farm: BulkFarm) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4), "red").save(buffer, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 4), "blue")])
    assert send(quick_farm, buffer.getvalue(), "phone.jpg")["format"] == "jpg"
    frames = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(frames, "WEBP", save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")])
    response = quick_farm.client.post(ASSETS, data=frames.getvalue(), content_type="image/webp")
    assert "animation" in response.text


def as_zip64(data: bytes) -> bytes:
    """The ZIP with a ZIP64 directory beside its own, as some programs always write it."""
    end = data.rindex(b"PK\x05\x06")
    count, size, offset = (int.from_bytes(data[end + at : end + at + n], "little") for at, n in ((10, 2), (12, 4), (16, 4)))
    record = b"PK\x06\x06" + (44).to_bytes(8, "little") + bytes((45, 0, 45, 0)) + bytes(8)
    record += b"".join(number.to_bytes(8, "little") for number in (count, count, size, offset))
    locator = b"PK\x06\x07" + bytes(4) + end.to_bytes(8, "little") + (1).to_bytes(4, "little")
    return data[:end] + record + locator + data[end:]


def test_a_small_zip64_is_a_zip(quick_farm: BulkFarm) -> None:
    data = as_zip64(zipped({"box.png": picture()}))
    response = quick_farm.client.post(ASSETS, data=data, content_type="application/zip")
    assert response.status_code == 201, response.text
    assert meant(quick_farm, "box.png")
    end = data.rindex(b"PK\x06\x06")
    for size in (7 * 1024 * 1024, 2**63):  # what the record claims is bounded, as the old field is
        forged = data[: end + 40] + size.to_bytes(8, "little") + data[end + 48 :]
        assert "too many files" in quick_farm.client.post(ASSETS, data=forged, content_type="application/zip").text
    broken = data[:end] + b"XXXX" + data[end + 4 :]
    assert "ZIP64" in quick_farm.client.post(ASSETS, data=broken, content_type="application/zip").text
