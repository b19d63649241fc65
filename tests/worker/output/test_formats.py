"""JPEG and WebP: the same words in every format, the way back to the job, and quality that does what it says."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from imagefarm.catalogue import Catalogue
from imagefarm.errors import InvalidRequest
from imagefarm.imaging.encode import encode_picture
from imagefarm.imaging.labels import COMPOSED, MADE
from imagefarm.imaging.metadata import read_metadata, text_chunks
from imagefarm.recipe import Format, JobRequest, Recipe

DIGEST = "0123456789abcdef" * 4


def smooth(side: int = 96) -> NDArray[np.uint8]:
    """A picture that compresses as photos do."""
    y, x = np.mgrid[:side, :side]
    return np.stack([x * 2 % 256, y * 2 % 256, (x + y) % 256], axis=-1).astype(np.uint8)


def resolve(catalogue: Catalogue, **fields: object) -> Recipe:
    return catalogue.resolve(JobRequest.model_validate({"prompt": "a mug", "seed": 7, **fields}))[0]


@pytest.mark.parametrize("picture_format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("prompt", ['a red mug, <on> white & "more"', "白色背景上的红色马克杯 🍵", "x" * 4000, "茶" * 4000])
def test_every_format_tells_the_same(catalogue: Catalogue, picture_format: Format, prompt: str) -> None:
    recipe = resolve(catalogue, prompt=prompt, negative_prompt="模糊", format=picture_format)
    data = encode_picture(smooth(), text_chunks("job_x", 3, recipe, 9, DIGEST), picture_format, recipe.quality)
    found = read_metadata(data)
    assert (found["format"], found["width"], found["height"]) == (picture_format, 96, 96)
    assert (found["settings"]["Prompt"], found["settings"]["Negative prompt"]) == (prompt, "模糊")
    assert found["settings"]["Seed"] == "9"
    assert found["imagefarm"] | {"job": "job_x", "index": 3, "recipe_hash": recipe.recipe_hash} == found["imagefarm"]


@pytest.mark.parametrize("picture_format", ["png", "jpeg", "webp"])
def test_every_format_says_that_it_was_made(picture_format: Format) -> None:
    for source in (MADE, COMPOSED):
        data = encode_picture(smooth(), {"imagefarm": "{}"}, picture_format, source=source)
        with Image.open(io.BytesIO(data)) as image:
            packet = image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode()
        assert f"<Iptc4xmpExt:DigitalSourceType>{source}<".encode() in packet


def test_a1111_reads_the_comment(catalogue: Catalogue) -> None:
    texts = text_chunks("job_x", 0, resolve(catalogue), 7, DIGEST)
    with Image.open(io.BytesIO(encode_picture(smooth(), texts, "jpeg"))) as image:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment.startswith(b"UNICODE\0")
    assert comment[8:].decode("utf-16-be") == texts["parameters"]


def test_quality_weighs() -> None:
    for picture_format in ("jpeg", "webp"):
        sizes = [len(encode_picture(smooth(256), {}, picture_format, quality)) for quality in (20, 60, 95)]
        assert sizes == sorted(set(sizes))
    with Image.open(io.BytesIO(encode_picture(smooth(), {}, "webp", 100))) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), smooth())


def test_the_format_is_part_of_the_recipe_and_old_recipes_keep_their_hash(catalogue: Catalogue) -> None:
    plain = resolve(catalogue)
    assert (plain.format, plain.quality) == ("png", None)
    assert '"format"' not in plain.canonical_json()
    made = [resolve(catalogue, format="jpeg"), resolve(catalogue, format="webp"), resolve(catalogue, format="jpeg", quality=50)]
    assert [recipe.quality for recipe in made] == [90, 90, 50]
    assert len({recipe.recipe_hash for recipe in (plain, *made)}) == 4
    assert Recipe.model_validate_json(made[0].canonical_json()) == made[0]


@pytest.mark.parametrize(
    ("fields", "field", "remedy"),
    [
        ({"quality": 80}, "quality", "jpeg or webp"),
        ({"format": "png", "quality": 80}, "quality", "leave it out"),
        ({"model": "z-image-turbo", "width": 2048, "height": 2048, "upscale": {"scale": 4}, "format": "webp"}, None, ""),
        ({"model": "z-image", "width": 2048, "height": 2048, "upscale": {"scale": 4}}, None, ""),
    ],
)
def test_what_cannot_be_is_named(catalogue: Catalogue, fields: dict[str, object], field: str | None, remedy: str) -> None:
    if field is None:
        assert resolve(catalogue, **fields)
        return
    with pytest.raises(InvalidRequest) as caught:
        resolve(catalogue, **fields)
    assert caught.value.errors[0].field == field
    assert remedy in caught.value.errors[0].remedy


def test_hostile_metadata_is_no_trouble() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0\xd8"
    for xmp in (b"<imagefarm:record>" * 50_000, b"<imagefarm:record>[[[[</imagefarm:record>", b"\xff" * 1000):
        file = io.BytesIO()
        Image.fromarray(smooth()).save(file, "WEBP", exif=exif.tobytes(), xmp=xmp)
        assert "imagefarm" not in read_metadata(file.getvalue())
