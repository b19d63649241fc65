"""Images: metadata, file, ranges, thumbnails, and the way back from a file to its job."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Picture

from api.v1.images import thumbnails
from tests.api.farm_api import FarmApi, problem


@pytest.fixture(scope="module")
def job(api: FarmApi) -> dict[str, Any]:
    return api.rendered("a red mug on a blue table", seed=11, count=2, labels={"sku": "A-1"}, custom_id="A-1-front")


@pytest.fixture(scope="module")
def file(api: FarmApi, job: dict[str, Any]) -> bytes:
    return api.http.get(job["images"][0]["url"]).data


def test_metadata_has_recipe_and_audit(api: FarmApi, job: dict[str, Any]) -> None:
    image = job["images"][1]
    detail = api.get(f"/api/v1/images/{image['id']}")
    assert {name: detail[name] for name in image} == image
    assert (detail["job_id"], detail["job_url"]) == (job["id"], job["urls"]["self"])
    assert (detail["recipe"], detail["labels"], detail["custom_id"]) == (job["recipe"], {"sku": "A-1"}, "A-1-front")
    assert (detail["seed"], detail["audit"]) == ("12", {"device": "cpu"})


def test_the_file_is_what_the_hash_says(api: FarmApi, job: dict[str, Any]) -> None:
    image = job["images"][0]
    response = api.http.get(image["url"])
    assert response.content_type == "image/png"
    assert hashlib.sha256(response.data).hexdigest() == image["sha256"]
    assert len(response.data) == image["bytes"] == response.content_length
    assert response.headers["ETag"] == f'"{image["sha256"]}"'
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "immutable" in response.headers["Cache-Control"]
    assert "private" in response.headers["Cache-Control"]
    assert image["id"] in response.headers["Content-Disposition"]


def test_conditional_and_partial_requests(api: FarmApi, job: dict[str, Any], file: bytes) -> None:
    url = job["images"][0]["url"]
    unchanged = api.http.get(url, headers={"If-None-Match": f'"{job["images"][0]["sha256"]}"'})
    assert (unchanged.status_code, unchanged.data) == (304, b"")
    part = api.http.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.data) == (206, file[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(file)}"
    assert api.http.get(url, headers={"Range": "bytes=-5"}).data == file[-5:]
    problem(api.http.get(url, headers={"Range": f"bytes={len(file)}-"}), 416)
    head = api.http.head(url)
    assert (head.status_code, head.data, head.content_length) == (200, b"", len(file))


def test_a_thumbnail_is_small_and_kept(api: FarmApi, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    image = job["images"][0]
    response = api.http.get(image["thumb_url"].replace("256", "64"))
    assert response.content_type == "image/webp"
    with Picture.open(io.BytesIO(response.data)) as picture:
        assert picture.size == (64, 64)
        assert not picture.info.get("exif")
    monkeypatch.setattr(thumbnails, "_shrink", None)  # not made again
    again = api.http.get(image["thumb_url"].replace("256", "64"))
    assert again.data == response.data
    assert (
        api.http.get(image["thumb_url"].replace("256", "64"), headers={"If-None-Match": again.headers["ETag"]}).status_code == 304
    )
    for wrong in ("1", "257", "99999", "x", ""):
        assert problem(api.http.get(f"{image['url']}?thumb={wrong}"), 422)["errors"][0]["field"] == "thumb"


def test_a_thumbnail_where_nothing_can_be_kept(api: FarmApi, job: dict[str, Any], tmp_path: Path) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError("no space left")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thumbnails, "_keep", full)
        assert api.http.get(f"{job['images'][1]['url']}?thumb=128").status_code == 200


def test_a_file_that_is_gone(api: FarmApi) -> None:
    [image] = api.rendered("short lived")["images"]
    for path in api.app_context.settings.outputs.rglob("*.png"):
        if hashlib.sha256(path.read_bytes()).hexdigest() == image["sha256"]:
            path.unlink()
    assert problem(api.http.get(image["url"]), 404)["type"] == "/problems/file_missing"
    assert problem(api.http.get(image["thumb_url"]), 404)["type"] == "/problems/file_missing"


def test_images_by_hash_and_by_page(api: FarmApi, job: dict[str, Any]) -> None:
    image = job["images"][0]
    for kind in ("sha256", "pixel_sha256"):
        [found] = api.get(f"/api/v1/images?{kind}={image[kind]}")["items"]
        assert (found["id"], found["job_id"]) == (image["id"], job["id"])
    assert api.get(f"/api/v1/images?sha256={'0' * 64}")["items"] == []
    ids, cursor = [], None
    while True:
        page = api.get("/api/v1/images", query_string={"limit": 1} | ({"cursor": cursor} if cursor else {}))
        ids += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert ids == sorted(ids, reverse=True)
    assert {image["id"] for image in job["images"]} <= set(ids)


class TestLookup:
    """A file is sent in; its job comes out."""

    def look_up(self, api: FarmApi, data: bytes, media: str = "application/octet-stream") -> dict[str, Any]:
        response = api.http.post("/api/v1/images/lookup", data=data, content_type=media)
        assert response.status_code == 200, response.text
        return response.get_json()

    def test_by_the_file(self, api: FarmApi, job: dict[str, Any], file: bytes) -> None:
        for found in (
            self.look_up(api, file, "image/png"),
            api.http.post("/api/v1/images/lookup", data={"file": (io.BytesIO(file), "a.png")}).get_json(),
        ):
            assert found["found_by"] == "file"
            assert found["items"][0]["job_id"] == job["id"]
            assert found["metadata"]["imagefarm"]["job"] == job["id"]
            assert found["metadata"]["settings"]["Seed"] == "11"

    @pytest.mark.parametrize(("form", "end"), [("jpeg", "jpg"), ("webp", "webp")])
    def test_in_every_format(self, api: FarmApi, form: str, end: str) -> None:
        image = api.rendered("a mug", format=form)["images"][0]
        response = api.http.get(image["url"])
        assert (response.content_type, image["format"]) == (f"image/{form}", form)
        assert response.headers["Content-Disposition"].endswith(f'.{end}"')
        assert api.http.get(image["thumb_url"]).content_type == "image/webp"
        assert self.look_up(api, response.data, f"image/{form}")["found_by"] == "file"
        # another program changed bytes that are not the picture's: what the file says still leads back
        found = self.look_up(api, response.data + b"\0")
        assert (found["found_by"], found["items"][0]["id"]) == ("metadata", image["id"])

    def test_by_its_pixels(self, api: FarmApi, job: dict[str, Any], file: bytes) -> None:
        for form in ("PNG", "BMP", "TIFF"):  # saved by another program: no metadata, other bytes
            with Picture.open(io.BytesIO(file)) as picture:
                saved = io.BytesIO()
                Picture.fromarray(__import__("numpy").asarray(picture)).save(saved, form)
            found = self.look_up(api, saved.getvalue())
            assert (found["found_by"], found["items"][0]["id"]) == ("pixels", job["images"][0]["id"])
            assert "imagefarm" not in found["metadata"]

    def test_by_what_it_says(self, api: FarmApi, job: dict[str, Any], file: bytes) -> None:
        from PIL.PngImagePlugin import PngInfo

        with Picture.open(io.BytesIO(file)) as picture:
            texts = PngInfo()
            for key, value in picture.info.items():
                if isinstance(value, str):  # not the intent of the sRGB chunk
                    texts.add_text(key, value)
            saved = io.BytesIO()
            picture.rotate(90).save(saved, "PNG", pnginfo=texts)
        found = self.look_up(api, saved.getvalue())
        assert (found["found_by"], found["items"][0]["id"]) == ("metadata", job["images"][0]["id"])

    def test_a_strangers_picture_is_not_found(self, api: FarmApi) -> None:
        saved = io.BytesIO()
        Picture.new("RGB", (8, 8), "red").save(saved, "PNG")
        found = self.look_up(api, saved.getvalue())
        assert (found["items"], found["found_by"], found["metadata"]["width"]) == ([], None, 8)

    @pytest.mark.parametrize("claim", [{"job": 5, "index": 0}, {"job": "a\0b", "index": 0}, {"job": "x", "index": 2**70}, {}])
    def test_a_lying_file_does_no_harm(self, api: FarmApi, claim: dict[str, Any]) -> None:
        import json

        from PIL.PngImagePlugin import PngInfo

        texts = PngInfo()
        texts.add_text("imagefarm", json.dumps(claim))
        texts.add_text("parameters", "x" * 100_000)
        saved = io.BytesIO()
        Picture.new("RGB", (8, 8)).save(saved, "PNG", pnginfo=texts)
        assert self.look_up(api, saved.getvalue())["items"] == []

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"", 422),
            (b"not a picture", 400),
            (b"\x89PNG\r\n\x1a\n", 400),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400),
            (b"GIF89a" + b"\0" * 50, 400),
        ],
    )
    def test_what_is_no_picture_is_refused(self, api: FarmApi, data: bytes, status: int) -> None:
        problem(api.http.post("/api/v1/images/lookup", data=data, content_type="image/png"), status)

    def test_a_form_without_its_file(self, api: FarmApi) -> None:
        body = problem(api.http.post("/api/v1/images/lookup", data={"other": "x"}, content_type="multipart/form-data"), 422)
        assert body["errors"][0]["field"] == "file"
        problem(api.http.post("/api/v1/images/lookup", data=b"garbage", content_type="multipart/form-data"), 422)

    def test_a_bomb_is_not_opened(self, api: FarmApi) -> None:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
        bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
        problem(api.http.post("/api/v1/images/lookup", data=bomb, content_type="image/png"), 400)

    def test_an_upload_is_bounded(self, api: FarmApi, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("api.v1.images.routes.MAX_LOOKUP_BYTES", 3_000_000)
        body = problem(api.http.post("/api/v1/images/lookup", data=b"x" * 3_100_000, content_type="image/png"), 413)
        assert "3000000" in body["detail"]
        form = {"file": (io.BytesIO(b"x" * 3_100_000), "a.png")}
        problem(api.http.post("/api/v1/images/lookup", data=form), 413)
