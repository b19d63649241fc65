"""Cutting a subject out of its photo: by the photo's transparency, by a white background, or by a mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagefarm.errors import RenderError

WHITE_FROM = 255 - 20
"""A pixel whose every channel is at least so bright is white: lamps and JPEG leave no background at 255."""
SWEEPS = 200
"""Of the flood over a white background; photos need a handful, mazes are given up, and what is not reached stays subject."""
RIPPLE = 8
OPAQUE_FROM = 0.95
"""An edge pixel that is so much subject is all subject."""
TELLS_FROM_WHITE = 40
"""A subject that is nearer to white than this at an edge cannot be told from the background there; it stays as it is."""


@dataclass(frozen=True, slots=True, repr=False)
class Cutout:
    """A subject without its surroundings, cropped to its box."""

    colours: NDArray[np.uint8]
    """(height, width, 3) RGB."""
    alpha: NDArray[np.uint8]
    """(height, width): 255 where the photo's pixel is the subject's, and nothing else's."""


def cut_out(photo: Image.Image, kind: str, mask: Image.Image | None) -> Cutout:
    """The subject of `photo` (RGBA). `kind` is `alpha`, `white`, or else `mask` says where it is: white is subject.

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
        raise _wrong("leaves nothing of the photo; look at the mask")
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return Cutout(np.ascontiguousarray(colours[box]), np.ascontiguousarray(alpha[box]))


def without_ringing(alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Alpha with what is nearly invisible wholly so, and what is nearly opaque too: resampling leaves ripples beside edges."""
    return np.where(alpha < RIPPLE, 0, np.where(alpha > 255 - RIPPLE, 255, alpha)).astype(np.uint8)


def from_white(colours: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Colours and alpha of a photo on white. White that the border does not reach, as inside a ring, is the subject's.

    An edge pixel is a mixture of subject and background: the white is taken out of it, so that none is left as a fringe.
    """
    background = reached_from_border(np.asarray(colours.min(axis=2) >= WHITE_FROM))
    if not background.any():
        raise _wrong("the photo's border is not white; use alpha, or a mask of its own")
    alpha = np.where(background, 0, 255).astype(np.uint8)
    edge = ~background & _grown(background)
    # how far from white: the edge pixel against the subject beside it says how much of it is subject
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
    """Which of the open pixels hang together with the border, going up, down, left and right."""
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
    """Every run of open pixels in a row of which one is reached is reached."""
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
    """The largest of the 3 x 3 values around each."""
    rows = np.pad(values, ((1, 1), (0, 0)))
    tall = np.maximum(np.maximum(rows[:-2], rows[1:-1]), rows[2:])
    wide = np.pad(tall, ((0, 0), (1, 1)))
    largest: NDArray[np.float32] = np.maximum(np.maximum(wide[:, :-2], wide[:, 1:-1]), wide[:, 2:])
    return largest


def _wrong(what: str) -> RenderError:
    return RenderError("input_invalid", f"subject.mask: {what}")
