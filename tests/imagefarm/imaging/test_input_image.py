"""Input images: upright, 8 bits, sRGB, whatever the camera or program that wrote them."""

from __future__ import annotations

import io
from functools import cache

import pytest
from PIL import Image, ImageCms

from imagefarm.imaging.colour import srgb_profile
from imagefarm.imaging.input_image import normalised, png_in_srgb

RED = (200, 60, 40)
WIDE = "Wide RGB"


@cache
def wide_profile() -> bytes:
    """A profile whose red and green swap places with sRGB's: colours change by much."""
    profile = bytearray(srgb_profile())
    count = int.from_bytes(profile[128:132], "big")
    tags = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = profile[green + 4 : green + 12], profile[red + 4 : red + 12]
    return bytes(profile)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_colours_of_another_space_are_converted(kind: str) -> None:
    found = normalised(saved(Image.new("RGB", (16, 16), RED), kind, icc_profile=wide_profile()))
    assert found.is_changed
    assert "converted" in found.notes[0]
    red, green, _ = found.image.getpixel((8, 8))  # type: ignore[misc]
    assert green > 150 > red
    plain = normalised(saved(Image.new("RGB", (16, 16), RED), kind))
    assert (plain.is_changed, plain.notes) == (False, ())


def test_alpha_stays_beside_converted_colours() -> None:
    image = Image.new("RGBA", (4, 4), (*RED, 90))
    found = normalised(saved(image, icc_profile=wide_profile()))
    assert found.image.getpixel((0, 0))[3] == 90  # type: ignore[index]
    assert found.image.getpixel((0, 0))[1] > 150  # type: ignore[index]


def test_srgb_by_another_name_is_left_as_it_is() -> None:
    found = normalised(saved(Image.new("RGB", (4, 4), RED), icc_profile=srgb_profile()))
    assert (found.is_changed, found.notes, found.image.getpixel((0, 0))) == (False, (), RED)


@pytest.mark.parametrize("profile", [b"no profile", srgb_profile()[:200], wide_profile()[:-40]])
def test_a_broken_profile_is_left_aside_in_words(profile: bytes) -> None:
    found = normalised(saved(Image.new("L", (4, 4), 100), icc_profile=profile))
    assert found.image.getpixel((0, 0)) == (100, 100, 100)
    assert not found.is_changed
    assert "ignored" in found.notes[0]


def test_grey_of_16_bits_is_scaled() -> None:
    grey = Image.frombytes("I;16", (3, 1), b"".join(value.to_bytes(2, "little") for value in (0, 32768, 65535)))
    found = normalised(saved(grey))
    assert [found.image.getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (128,) * 3, (255,) * 3]
    assert found.notes == ("scaled to 8 bits",)
    assert [normalised(grey.convert("I")).image.getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (128,) * 3, (255,) * 3]


def test_one_grey_of_16_bits_may_be_transparent() -> None:
    grey = Image.frombytes("I;16", (2, 1), (1000).to_bytes(2, "little") + (65535).to_bytes(2, "little"))
    grey.info["transparency"] = 1000
    found = normalised(grey)
    assert [found.image.getpixel((x, 0))[3] for x in range(2)] == [0, 255]  # type: ignore[index]


def test_floats_are_scaled() -> None:
    for high, value in ((1.0, 0.5), (255.0, 127.6), (65535.0, 32768.0)):
        grey = Image.new("F", (2, 1), high)
        grey.putpixel((0, 0), value)
        assert normalised(grey).image.getpixel((0, 0)) == (128,) * 3


def test_the_first_of_many_pictures_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    first, second = Image.new("RGB", (8, 4), RED), Image.new("RGB", (8, 4), "blue")
    found = normalised(saved(first, "MPO", save_all=True, append_images=[second], exif=exif))
    assert found.image.size == (4, 8)
    assert found.image.getpixel((1, 1))[0] > 150  # type: ignore[index]
    assert found.notes == ("turned upright", "the first of 2 pictures in the file")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    found = normalised(Image.new("RGBA", (4, 4), (0, 0, 0, 255)).convert("RGB").convert(mode))
    assert found.image.mode in {"RGB", "RGBA"}
    assert found.image.convert("RGB").getpixel((0, 0)) == (0, 0, 0)


def test_what_is_stored_says_that_it_is_srgb() -> None:
    data = png_in_srgb(Image.new("RGB", (4, 4), RED))
    assert b"sRGB\x00" in data
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["srgb"] == 0


def test_the_profile_of_outputs_is_always_the_same() -> None:
    assert ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile()))).strip().startswith("sRGB")
    srgb_profile.cache_clear()
    before = srgb_profile()
    srgb_profile.cache_clear()
    assert srgb_profile() == before
