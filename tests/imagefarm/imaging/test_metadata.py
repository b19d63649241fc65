"""Pictures as files: PNG is lossless, and what the text chunks say can be read back."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imagefarm.errors import RequestError
from imagefarm.imaging import png
from imagefarm.imaging.metadata import parameters_text, parse_parameters, read_metadata, text_chunks
from imagefarm.imaging.png import encode_png, pixel_sha256
from imagefarm.recipe import Lora, Recipe, Upscale
from imagefarm.text import is_blank

DIGEST = "0123456789abcdef" * 4


def recipe(**changes: object) -> Recipe:
    fields: dict[str, object] = {
        "model": "demo",
        "prompt": "a red mug",
        "width": 64,
        "height": 64,
        "steps": 8,
        "guidance": 0.0,
        "sampler": "flow-euler",
        "seed": 42,
    }
    return Recipe.model_validate(fields | changes)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def gradient(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8)


@pytest.fixture(params=["isal", "zlib"])
def deflate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    png._deflate.cache_clear()
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)  # as on a machine without it
    yield
    png._deflate.cache_clear()


@pytest.mark.usefixtures("deflate")
@pytest.mark.parametrize(
    "pixels", [noise(64, 64), noise(1, 1), noise(17, 3), gradient(300, 200), np.zeros((64, 64, 3), np.uint8)]
)
def test_png_is_lossless_by_another_decoder(pixels: np.ndarray) -> None:
    with Image.open(io.BytesIO(encode_png(pixels, {"parameters": "a mug", "中文".encode().hex(): "白色背景"}))) as image:
        image.verify()
    with Image.open(io.BytesIO(encode_png(pixels, {}))) as image:
        assert (image.mode, image.format) == ("RGB", "PNG")
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.usefixtures("deflate")
def test_png_of_a_photo_is_not_much_bigger_than_pillows() -> None:
    small = Image.fromarray(noise(16, 16)).resize((256, 256), Image.Resampling.BICUBIC)
    pixels = (np.asarray(small) // 2 + noise(256, 256) // 64).astype(np.uint8)
    other = io.BytesIO()
    Image.fromarray(pixels).save(other, "PNG")
    assert len(encode_png(pixels, {})) < 1.3 * len(other.getvalue())


def test_png_refuses_what_is_no_rgb_picture() -> None:
    for bad in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            encode_png(bad, {})
    with pytest.raises(ValueError, match="keyword"):
        encode_png(noise(2, 2), {"": "x"})


@pytest.mark.process
def test_the_core_imports_neither_numpy_nor_isal() -> None:
    code = (
        "import sys; sys.modules.update(numpy=None, isal=None)\n"
        "import imagefarm.imaging.png, imagefarm.imaging.metadata, imagefarm.output_store"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pixel_hash_is_of_the_picture_not_of_the_file() -> None:
    pixels = noise(8, 16)
    for texts in ({}, {"parameters": "x"}):
        with Image.open(io.BytesIO(encode_png(pixels, texts))) as image:
            assert pixel_sha256(image.width, image.height, image.tobytes()) == pixel_sha256(16, 8, pixels.data)
    assert pixel_sha256(16, 8, pixels.data) != pixel_sha256(8, 16, pixels.data)
    changed = pixels.copy()
    changed[0, 0, 0] ^= 1
    assert pixel_sha256(16, 8, pixels.data) != pixel_sha256(16, 8, changed.data)


def test_parameters_are_written_as_a1111_writes_them() -> None:
    text = parameters_text(recipe(negative_prompt="blurry", guidance=4.5), 43, DIGEST)
    first, second, last = text.split("\n")
    assert (first, second) == ("a red mug", "Negative prompt: blurry")
    assert last.startswith(
        "Steps: 8, Sampler: flow-euler, CFG scale: 4.5, Seed: 43, Size: 64x64, "
        "Model hash: 0123456789, Model: demo, Version: imagefarm"
    )


prompts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), min_size=1
).filter(lambda text: text == text.strip() and not is_blank(text))


@settings(max_examples=60, deadline=None)
@given(prompt=prompts, negative=prompts | st.just(""), seed=st.integers(0, 2**64 - 1))
def test_what_is_written_into_a_file_is_read_back(prompt: str, negative: str, seed: int) -> None:
    made = recipe(
        prompt=prompt,
        negative_prompt=negative,
        loras=[Lora(name="a,b", weight=0.5), Lora(name="c")],
        upscale=Upscale(scale=2),
    )
    found = read_metadata(encode_png(noise(4, 4), text_chunks("job_x", 3, made, seed, DIGEST)))
    assert (found["format"], found["width"], found["height"]) == ("png", 4, 4)
    assert found["settings"]["Prompt"] == prompt
    assert found["settings"]["Negative prompt"] == negative
    assert found["settings"]["Seed"] == str(seed)
    assert found["settings"]["Lora"] == "a,b:0.5; c:1"
    assert found["imagefarm"] == {
        "job": "job_x",
        "index": 3,
        "seed": str(seed),
        "model": "demo",
        "model_digest": DIGEST,
        "recipe_hash": made.recipe_hash,
        "version": found["imagefarm"]["version"],
    }


def test_prose_is_not_taken_for_settings() -> None:
    assert parse_parameters("a mug, big: very") == {"Prompt": "a mug, big: very", "Negative prompt": ""}


@pytest.mark.parametrize(
    "data", [b"", b"not a picture", encode_png(noise(64, 64), {})[:-5000], b"\x89PNG\r\n\x1a\n" + b"\0" * 40]
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError, match="not a picture") as caught:
        read_metadata(data)
    assert "0x" not in str(caught.value), "no address of an object"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_small_file_that_claims_a_huge_picture_is_refused() -> None:
    bomb = Image.new("1", (12_000, 12_000))
    file = io.BytesIO()
    bomb.save(file, "PNG")
    assert len(file.getvalue()) < 50_000
    with pytest.raises(RequestError, match="pixels"):
        read_metadata(file.getvalue())


def test_a_forged_record_is_ignored_or_returned_as_claimed() -> None:
    for forged, kept in (("[1]", False), ("{", False), ("[" * 100_000, False), (json.dumps({"job": "x"}), True)):
        assert ("imagefarm" in read_metadata(encode_png(noise(2, 2), {"imagefarm": forged}))) is kept


def test_text_chunks_have_right_checksums() -> None:
    data = encode_png(noise(2, 2), {"a": "latin", "b": "中"})
    at, kinds = 8, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        body = data[at + 4 : at + 8 + size]
        assert zlib.crc32(body) == int.from_bytes(data[at + 8 + size : at + 12 + size])
        kinds.append(body[:4])
        at += 12 + size
    assert kinds == [b"IHDR", b"sRGB", b"tEXt", b"iTXt", b"IDAT", b"IEND"]
