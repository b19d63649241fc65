"""Reads a demo picture back: which object, in which colours, before which background, where and how often.

It knows nothing of what was asked for: colours come from the pixels, and object and layout from the procedural drawing,
among all objects and layouts, that the picture is nearest to. Needs Pillow and NumPy alone.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.demo_model.palette import COLORS, PALETTE, dark_of, floor_of, light_of
from tools.demo_model.products import OBJECTS
from tools.demo_model.scenes import LAYOUTS, Scene, render

EDGE = 64  # pictures are compared at this size
TOP_ROWS = 4  # these rows show nothing but the wall
VARIANTS = 4  # drawings of every object and layout, slightly different in size and place
SHIFTS = (-1, 0, 1)  # pixels that a picture may be moved to fit a drawing
CANDIDATES = 3  # colours that are tried
LIMIT = 32.0  # a picture further from every drawing than this shows none of the objects
Values = NDArray[np.float32]

_COLOR_VALUES = np.array([PALETTE[name] for name in COLORS], np.float32)
_SHADES = np.array([[rgb, dark_of(rgb), light_of(rgb)] for rgb in PALETTE.values()], np.float32)


@dataclass(frozen=True)
class Reading:
    """What a picture shows.

    `obj` is one of OBJECTS, or None where nothing is recognised; `color` and `bg` are of COLORS (`color` is None for an
    empty picture), `layout` is one of LAYOUTS. `error` is the RMS distance per channel, 0..255, to the nearest drawing.
    """

    obj: str | None
    color: str | None
    bg: str
    layout: str
    error: float


def read_picture(image: Image.Image) -> Reading:
    """Read a square picture of 64 x 64 pixels or a multiple of it."""
    values = _values(image)
    wall = np.median(values[:TOP_ROWS].reshape(-1, 3), 0)
    bg = COLORS[int(((_COLOR_VALUES - wall) ** 2).sum(1).argmin())]
    best: Reading | None = None
    for color in _likely_colors(values, wall, bg):
        errors = _distances(values, _drawings(color, bg))
        nearest = int(errors.argmin())
        obj, layout = divmod(nearest // VARIANTS, len(LAYOUTS))
        error = float(errors[nearest] ** 0.5)
        if best is None or error < best.error:
            best = Reading(OBJECTS[obj] if error <= LIMIT else None, color, bg, LAYOUTS[layout], error)
    return best or Reading(None, None, bg, "center", float("inf"))


def matches(image: Image.Image, obj: str, color: str, bg: str, layout: str = "center") -> dict[str, bool]:
    """Whether the picture shows what was asked for: one answer for "object", "color", "background" and "layout"."""
    seen = read_picture(image)
    return {
        "object": seen.obj == obj,
        "color": seen.color == color,
        "background": seen.bg == bg,
        "layout": seen.layout == layout,
    }


def _values(image: Image.Image) -> Values:
    """The picture's channels, 0..255, (EDGE, EDGE, 3)."""
    return np.asarray(image.convert("RGB").resize((EDGE, EDGE), Image.Resampling.BOX), np.float32)


def _likely_colors(values: Values, wall: Values, bg: str) -> list[str]:
    """At most CANDIDATES colours that many of the object's pixels belong to, as they are or in one of their shades.

    The most frequent one need not be the object's: an open book shows more paper than cover.
    """
    pixels = values.reshape(-1, 3)
    floor = np.array(floor_of((int(wall[0]), int(wall[1]), int(wall[2]))), np.float32)
    for ground in (wall, floor):
        pixels = pixels[((pixels - ground) ** 2).sum(1) > 40**2]
    if len(pixels) < 20:
        return []
    distances = ((pixels[:, None, None] - _SHADES) ** 2).sum(-1)
    near = distances.min((1, 2)) < 45**2
    votes = np.bincount(distances.min(2).argmin(1), near, minlength=len(COLORS))
    votes[COLORS.index(bg)] = 0
    ranked = [int(k) for k in votes.argsort()[::-1][:CANDIDATES]]
    return [COLORS[k] for k in ranked if votes[k] > 0.05 * votes.sum()]


@functools.lru_cache(maxsize=128)
def _drawings(color: str, bg: str) -> Values:
    """All drawings in these colours, flat: (objects * layouts * VARIANTS, features), in that order."""
    rng = random.Random(3)
    return np.stack(
        [
            _features(np.asarray(render(Scene(obj, color, bg, layout), EDGE, EDGE, rng, supersampling=2), np.float32))
            for obj in OBJECTS
            for layout in LAYOUTS
            for _ in range(VARIANTS)
        ]
    )


def _features(values: Values) -> Values:
    """The picture without a margin, which moving it needs, averaged over 2 x 2 pixels."""
    inner = values[2:-2, 2:-2]
    half = len(inner) // 2
    flat: Values = inner.reshape(half, 2, half, 2, 3).mean((1, 3)).ravel()
    return flat


def _distances(values: Values, drawings: Values) -> NDArray[np.float64]:
    """Mean squared distance of the picture, moved by the best of SHIFTS both ways, to every drawing."""
    moved = np.stack([_features(np.roll(values, (down, right), (0, 1))) for down in SHIFTS for right in SHIFTS])
    products = drawings @ moved.T
    squares = (drawings**2).sum(1)[:, None] + (moved**2).sum(1) - 2 * products
    nearest: NDArray[np.float64] = squares.min(1).clip(0).astype(np.float64) / moved.shape[1]
    return nearest
