"""Input images: every image from outside is converted to upright, 8 bits per channel, RGB or RGBA, sRGB."""

from __future__ import annotations

import io
from typing import NamedTuple

from PIL import Image, ImageMath, ImageOps
from PIL.PngImagePlugin import PngInfo

from imagefarm.imaging.colour import to_srgb

ORIENTATION = 0x0112
UPRIGHT = 1
HIGHEST_16_BIT = 65535
MULTI_PICTURE = "MPO"
"""Pillow's name for a JPEG that contains further images (views, depth, brightness), as cameras and phones write it."""


class Normalised(NamedTuple):
    """An image as RGB or RGBA, whether its pixels differ from the file's, and notes of what was converted or ignored."""

    image: Image.Image
    is_changed: bool
    notes: tuple[str, ...]


def normalised(source: Image.Image) -> Normalised:
    """Decode an image, turn it upright, and convert it to 8 bits and sRGB."""
    image, notes = source, list[str]()
    if image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT:
        image = ImageOps.exif_transpose(image)
        notes.append("turned upright")
    is_wide = image.mode.startswith(("I", "F"))
    if is_wide:
        notes.append("scaled to 8 bits")
    is_changed = bool(notes)
    flat, alpha = _eight_bits(image) if is_wide else _flat(image)
    if profile := image.info.get("icc_profile"):
        in_srgb, said = to_srgb(flat, profile)
        is_changed = is_changed or in_srgb is not flat
        flat = in_srgb
        notes += [said] if said else []
    if source.format == MULTI_PICTURE:
        notes.append(f"the first of {getattr(source, 'n_frames', 1)} pictures in the file")
    flat = flat.convert("RGB")
    if alpha is not None:
        flat.putalpha(alpha)
    return Normalised(flat, is_changed, tuple(notes))


def _flat(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The image without transparency as L, CMYK or RGB, and its alpha."""
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        alpha = whole.getchannel("A")
        return whole.convert("RGB"), alpha
    return image if image.mode in {"L", "CMYK", "RGB"} else image.convert("L" if image.mode == "1" else "RGB"), None


def _eight_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """A grey image of 16 bits, or of floating point from 0 to 1, as L; and its alpha if one of its greys is transparent."""
    clear = image.info.get("transparency")
    if image.mode == "F":
        high = image.getextrema()[1]
        scale = 255.0 if float(str(high)) <= 1 else 1.0 if float(str(high)) <= 255 else 255 / HIGHEST_16_BIT
        return image.point(lambda value: value * scale + 0.5).convert("L"), None
    wide = image.convert("I")
    alpha = None
    if isinstance(clear, int):
        alpha = ImageMath.lambda_eval(lambda of: of["convert"]((of["wide"] != clear) * 255, "L"), wide=wide)
    return wide.point(lambda value: value * (255 / HIGHEST_16_BIT) + 0.5).convert("L"), alpha


def png_in_srgb(image: Image.Image) -> bytes:
    """The image as a PNG whose chunk declares sRGB."""
    buffer, said = io.BytesIO(), PngInfo()
    said.add(b"sRGB", b"\x00")
    image.save(buffer, "PNG", pnginfo=said, icc_profile=None)
    return buffer.getvalue()
