"""Cuts a subject out of its photo, by the photo's transparency, by a white background, or by a mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagefarm.errors import RenderError

WHITE_FROM = 255 - 20
"""A pixel is white if each of its channels has at least this value: lamps and JPEG leave no background at 255."""
SWEEPS = 200
"""Most sweeps of the flood fill over a white background. Photos need a few. Pixels not reached by then remain subject."""
RIPPLE = 8
OPAQUE_FROM = 0.95
"""An edge pixel with at least this share of subject counts as all subject."""
TELLS_FROM_WHITE = 40
"""At an edge, a subject nearer to white than this cannot be separated from the background; its pixels stay unchanged."""


@dataclass(frozen=True, slots=True, repr=False)
class Cutout:
    """A subject without its surroundings, cropped to its box."""

    colours: NDArray[np.uint8]
    """(height, width, 3) RGB."""
    alpha: NDArray[np.uint8]
    """(height, width): 255 where the photo's pixel belongs to the subject alone."""


def cut_out(photo: Image.Image, kind: str, mask: Image.Image | None) -> Cutout:
    """Cut the subject out of `photo` (RGBA). `kind` is `alpha` or `white`; with any other, `mask` is white where the subject is.

    Raises RenderError("input_invalid") naming field and remedy.
    """
    rgba = np.asarray(photo)
    colours, alpha = rgba[..., :3].copy(), rgba[..., 3].copy()
    if mask is not None:
        if mask.size != photo.size:
            raise _wrong(f"has {mask.width}x{mask.height} pixels, the photo {photo.width}x{photo.height}; send one of its size")
        alpha = np.asarray(mask.convert("L")).copy()
    elif kind == "white":
        on_white = np.asarray(Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB"))
        colours, alpha = from_white(on_white)
    elif alpha.min() == 255:
        raise _wrong("the photo has no transparent pixel; use white for a white background, or a mask of its own")
    alpha = without_ringing(alpha)
    if not alpha.any():
        raise _wrong("leaves nothing of the photo; check the mask")
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return Cutout(np.ascontiguousarray(colours[box]), np.ascontiguousarray(alpha[box]))


def without_ringing(alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Round nearly invisible alpha to 0 and nearly opaque alpha to 255, because resampling leaves ripples beside edges."""
    return np.where(alpha < RIPPLE, 0, np.where(alpha > 255 - RIPPLE, 255, alpha)).astype(np.uint8)


def from_white(colours: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return colours and alpha of a photo on white. White areas not connected to the border, as inside a ring, belong to the
    subject.

    An edge pixel mixes subject and background. The white part is subtracted from it, so that no white fringe remains.
    """
    background = reached_from_border(np.asarray(colours.min(axis=2) >= WHITE_FROM))
    if not background.any():
        raise _wrong("the photo's border is not white; use alpha, or a mask of its own")
    alpha = np.where(background, 0, 255).astype(np.uint8)
    edge = ~background & _grown(background)
    # the edge pixel's distance from white, compared with the subject beside it, is its share of subject
    distance = 255 - colours.min(axis=2).astype(np.float32)
    beside = _largest_around(np.where(background, 0, distance))
    part = np.where(beside >= TELLS_FROM_WHITE, distance / np.maximum(beside, 1), 1.0)
    mixed = edge & (part < OPAQUE_FROM)
    share = np.maximum(part[mixed], 0.05)
    unmixed = 255 - (255 - colours[mixed].astype(np.float32)) / share[:, None]
    colours = colours.copy()
    colours[mixed] = unmixed.clip(0, 255).round().astype(np.uint8)
    alpha[mixed] = (share * 255).round().astype(np.uint8)
    return colours, alpha


def reached_from_border(open_to: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The open pixels that are connected to the border by steps up, down, left and right."""
    reached = np.zeros_like(open_to)
    for edge in (np.s_[0, :], np.s_[-1, :], np.s_[:, 0], np.s_[:, -1]):
        reached[edge] = open_to[edge]
    number = -1
    for _ in range(SWEEPS):
        if (now := int(reached.sum())) == number:
            break
        number = now
        reached = _along_rows(reached, open_to)
        reached = _along_rows(reached.T, open_to.T).T
    return reached


def _along_rows(reached: NDArray[np.bool_], open_to: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Extend each reached pixel to its whole run of open pixels in the row."""
    begins = open_to.copy()
    begins[:, 1:] &= ~open_to[:, :-1]
    runs = np.cumsum(begins.ravel(), dtype=np.int32).reshape(open_to.shape)
    hit = np.zeros(int(runs.ravel()[-1]) + 1, np.bool_)
    hit[runs[reached]] = True
    return hit[runs] & open_to


def _grown(where: NDArray[np.bool_]) -> NDArray[np.bool_]:
    grown = where.copy()
    grown[1:] |= where[:-1]
    grown[:-1] |= where[1:]
    grown[:, 1:] |= where[:, :-1]
    grown[:, :-1] |= where[:, 1:]
    return grown


def _largest_around(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest of the 3 x 3 values around each pixel."""
    rows = np.pad(values, ((1, 1), (0, 0)))
    tall = np.maximum(np.maximum(rows[:-2], rows[1:-1]), rows[2:])
    wide = np.pad(tall, ((0, 0), (1, 1)))
    largest: NDArray[np.float32] = np.maximum(np.maximum(wide[:, :-2], wide[:, 1:-1]), wide[:, 2:])
    return largest


def _wrong(what: str) -> RenderError:
    return RenderError("input_invalid", f"subject.mask: {what}")
