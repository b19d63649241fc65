"""Colour conversion: from an image file's ICC profile to sRGB, which all images of the farm use."""

from __future__ import annotations

import io
from functools import cache

from PIL import Image, ImageCms

HEADER_DATE = slice(24, 36)
"""Bytes of an ICC profile's header that hold its date."""
SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
MAX_DIFFERENCE = 2
"""Largest difference of a channel (0 to 255) at which a profile still counts as sRGB."""
SWATCH_STEPS = 9
MAX_NAME = 80


@cache
def srgb_profile() -> bytes:
    """An ICC profile of sRGB, always the same bytes."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[HEADER_DATE] = bytes.fromhex("07d0 0001 0001 0000 0000 0000")  # 2000-01-01: a fixed date keeps the bytes the same
    return bytes(profile)


def to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, str]:
    """An RGB, L or CMYK image in sRGB, and a note of what was converted; the note is empty if the profile is sRGB already.

    A profile that cannot be read, or that is for another kind of image, is ignored, and the note says so.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space
    except (OSError, ImageCms.PyCMSError):
        return image, "colour profile ignored: it cannot be read"
    if space != SPACES.get(image.mode):
        return image, f"colour profile ignored: it is for {space.strip()}, the picture is {image.mode}"
    name = "".join(letter for letter in _name(source) if letter.isprintable()).strip()[:MAX_NAME] or "a profile without a name"
    try:
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            image.mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if image.mode != "CMYK" and _is_srgb(transform, image.mode):
            return image, ""
        return transform.apply(image), f"colours converted from {name} to sRGB"
    except ImageCms.PyCMSError:
        return image, f"colour profile ignored: {name} cannot be applied"


def _name(profile: ImageCms.ImageCmsProfile) -> str:
    try:
        return ImageCms.getProfileDescription(profile)
    except ImageCms.PyCMSError:
        return ""


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    swatch = _swatch(mode)
    shown, meant = transform.apply(swatch).tobytes(), swatch.convert("RGB").tobytes()
    return all(abs(one - other) <= MAX_DIFFERENCE for one, other in zip(shown, meant, strict=True))


def _swatch(mode: str) -> Image.Image:
    """A test image with colours from the whole of RGB, or with all greys."""
    if mode == "L":
        return Image.frombytes("L", (256, 1), bytes(range(256)))
    levels = [round(step * 255 / (SWATCH_STEPS - 1)) for step in range(SWATCH_STEPS)]
    pixels = bytes(level for r in levels for g in levels for b in levels for level in (r, g, b))
    return Image.frombytes("RGB", (SWATCH_STEPS**3, 1), pixels)
