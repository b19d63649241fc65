"""Lookup: a picture leads back to its job by its file, its pixels, or its metadata; any other file is reported as not found."""

import io
from typing import Any

import pytest
from PIL import Image

from tests.api.pages.conftest import Site
from tests.api.pages.payloads import PAYLOADS
from tests.api.pages.reading import Reading


def look_up(site: Site, data: bytes, lang: str = "en") -> Any:
    headers = {"Origin": "http://localhost", "Accept": "text/html", "Accept-Language": lang}
    return site.http.post("/lookup", data={"file": (io.BytesIO(data), "any.png")}, headers=headers)


@pytest.fixture
def picture(site: Site) -> tuple[str, bytes]:
    job = site.rendered("a looked-up mug")
    return job["id"], site.http.get(job["images"][0]["url"]).data


def test_the_empty_page_says_what_to_do(site: Site) -> None:
    assert "Drop a picture here or choose a file" in site.page("/lookup").text
    assert "把图片拖到这里" in site.page("/lookup", "zh").text


def test_a_picture_leads_to_its_job(site: Site, picture: tuple[str, bytes]) -> None:
    job_id, data = picture
    text = look_up(site, data).text
    assert f'href="/jobs/{job_id}"' in text
    assert "Found: this exact file was made here." in text
    assert "找到了" in look_up(site, data, "zh").text


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_every_format_leads_to_its_job(site: Site, kind: str) -> None:
    job = site.rendered(f"looked up as {kind}", format=kind)
    data = site.http.get(job["images"][0]["url"]).data
    assert Image.open(io.BytesIO(data)).format == kind.upper()
    text = look_up(site, data).text
    assert f'href="/jobs/{job["id"]}"' in text
    assert "this exact file" in text


def test_pixels_are_enough(site: Site, picture: tuple[str, bytes]) -> None:
    job_id, data = picture
    saved = io.BytesIO()
    Image.open(io.BytesIO(data)).save(saved, "WEBP", lossless=True)
    text = look_up(site, saved.getvalue()).text
    assert f'href="/jobs/{job_id}"' in text
    assert "the pixels match a picture made here" in text


def test_a_stranger_is_told_so(site: Site) -> None:
    saved = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(saved, "PNG")
    assert "This picture was not made here" in look_up(site, saved.getvalue()).text


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_picture_is_refused_on_the_page(site: Site, data: bytes) -> None:
    response = look_up(site, data)
    assert 400 <= response.status_code < 500
    assert 'class="error"' in response.text
    assert response.mimetype == "text/html"


def test_hostile_metadata_stays_text(site: Site) -> None:
    from PIL.PngImagePlugin import PngInfo

    for payload in PAYLOADS[::3]:
        told, saved = PngInfo(), io.BytesIO()
        told.add_itxt("parameters", payload)
        Image.new("RGB", (8, 8)).save(saved, "PNG", pnginfo=told)
        Reading(look_up(site, saved.getvalue()).text).check()
