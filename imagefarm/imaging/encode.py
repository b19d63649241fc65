"""Encodes an image in its recipe's format, with metadata about how it was made."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from imagefarm.imaging.labels import EXIF_IFD, FARM, MADE, PARAMETERS, SOFTWARE, USER_COMMENT, XMP, user_comment, xmp_packet
from imagefarm.imaging.png import encode_png
from imagefarm.recipe import Format
from imagefarm.version import __version__

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FULL_COLOUR_FROM = 90
"""JPEG quality from which chroma keeps its full resolution. Subsampling shows first on products on plain backgrounds."""
LOSSLESS = 100


def encode_picture(
    pixels: NDArray[np.uint8],
    texts: Mapping[str, str],
    picture_format: Format = "png",
    quality: int | None = None,
    *,
    source: str = MADE,
) -> bytes:
    """Return the file of `pixels` (height, width, 3) RGB. `texts` has A1111's text and the farm's record.

    Raises ValueError for another shape or type. `quality` None is 90.
    """
    if picture_format == "png":
        return encode_png(pixels, {**texts, XMP: xmp_packet(source=source).decode()})
    from PIL import Image

    from imagefarm.imaging.colour import srgb_profile

    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != "uint8" or 0 in pixels.shape:
        raise ValueError(f"a picture is (height, width, 3) of uint8, not {pixels.shape} of {pixels.dtype}")
    quality = 90 if quality is None else quality
    exif = Image.Exif()
    exif[SOFTWARE] = f"imagefarm {__version__}"
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = user_comment(texts.get(PARAMETERS, ""))
    # the fastest method: slower ones reduce the file size very little
    webp: dict[str, Any] = {"method": 0, "lossless": quality == LOSSLESS}
    jpeg: dict[str, Any] = {"subsampling": "4:4:4" if quality >= FULL_COLOUR_FROM else "4:2:0"}
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file,
        picture_format.upper(),
        quality=quality,
        exif=exif.tobytes(),
        icc_profile=srgb_profile(),
        xmp=xmp_packet(texts.get(FARM, ""), source=source),
        **(webp if picture_format == "webp" else jpeg),
    )
    return file.getvalue()
