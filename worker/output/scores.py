"""Scores of a finished image's pixels for the quality gate; `scheduler.batches.table.quality_gate` defines each score."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.inputs.scene import Placed

MAX_SIDE = 512
"""Images are measured at this size at most, so that sharpness means the same for drafts and finals and costs little."""
HASH_SIDE = 8


def measure(pixels: NDArray[np.uint8], subject: Placed | None = None) -> dict[str, Any]:
    """The scores of an image (height, width, 3). `subject` is what product mode placed in it."""
    picture = Image.fromarray(pixels).convert("L")  # BT.601 luma, as Pillow defines it
    small = picture
    if max(picture.size) > MAX_SIDE:
        small = picture.copy()
        small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    brightness = np.asarray(small, np.float32)
    return {
        "sharpness": round(float(_laplacian(brightness).var()), 3),
        "exposure": round(float(brightness.mean()) / 255, 4),
        "contrast": round(float(brightness.std()), 3),
        "dhash": difference_hash(picture),
        "subject": None if subject is None else round(own_share(pixels, subject), 6),
    }


def _laplacian(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The Laplacian of every inner pixel: the sum of its four neighbours less four times itself."""
    middle = values[1:-1, 1:-1]
    result: NDArray[np.float32] = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * middle
    return result


def difference_hash(picture: Image.Image) -> str:
    """A 64-bit dHash in hexadecimal: whether each of 8 x 8 cells is darker than the one to its right."""
    cells = np.asarray(picture.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX), np.int16)
    return np.packbits(cells[:, :-1] < cells[:, 1:]).tobytes().hex()


def own_share(pixels: NDArray[np.uint8], subject: Placed) -> float:
    """The share of a subject's opaque pixels that equal the photo's, at its size in the image."""
    cutout, left, top = subject.at(pixels.shape[1] // subject.width)
    rows, columns = cutout.alpha.shape
    area = pixels[top : top + rows, left : left + columns]
    opaque = cutout.alpha[: area.shape[0], : area.shape[1]] == 255
    same = (area == cutout.colours[: area.shape[0], : area.shape[1]]).all(axis=2)
    return float(same[opaque].mean()) if opaque.any() else 1.0
