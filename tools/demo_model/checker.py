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
    candidates = _likely_colors(values, wall, bg)
    if not candidates:
        return Reading(None, None, bg, "center", float("inf"))
    moved = _moved(values)
    _, drawn = min(_nearest(moved, _all_drawings(color, bg)) for color in candidates)
    number, place = divmod(drawn // VARIANTS, len(LAYOUTS))
    obj, layout = OBJECTS[number], LAYOUTS[place]
    colors = [color for color in COLORS if color != bg]
    # With the shape known, the colour is compared in coarse blocks: pixel by pixel, a thin edge that lies a little aside
    # would be nearest to a grey one.
    tints = [_nearest(_coarse(moved), _coarse(_drawings_of(obj, layout, color, bg)))[0] for color in colors]
    color = colors[tints.index(min(tints))]
    error = min(_nearest(moved, _drawings_of(obj, layout, other, bg))[0] for other in (color, *candidates)) ** 0.5
    return Reading(obj if error <= LIMIT else None, color, bg, layout, error)


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


def _draw(obj: str, layout: str, color: str, bg: str) -> Values:
    """Some drawings of one object and layout, the same ones in all colours: (VARIANTS, features)."""
    rng = random.Random(f"{obj} {layout}")
    scene = Scene(obj, color, bg, layout)
    pictures = [render(scene, EDGE, EDGE, rng, supersampling=2) for _ in range(VARIANTS)]
    return np.stack([_features(np.asarray(picture, np.float32)) for picture in pictures])


_drawings_of = functools.lru_cache(maxsize=512)(_draw)


@functools.lru_cache(maxsize=24)
def _all_drawings(color: str, bg: str) -> Values:
    """The drawings of all objects and layouts in these colours, in that order: (objects * layouts * VARIANTS, features)."""
    return np.concatenate([_draw(obj, layout, color, bg) for obj in OBJECTS for layout in LAYOUTS])


def _features(values: Values) -> Values:
    """The picture without a margin, which moving it needs, averaged over 2 x 2 pixels."""
    inner = values[2:-2, 2:-2]
    half = len(inner) // 2
    flat: Values = inner.reshape(half, 2, half, 2, 3).mean((1, 3)).ravel()
    return flat


def _coarse(features: Values) -> Values:
    """Features (count, features) averaged over blocks of 5 x 5, 10 x 10 pixels of the picture."""
    blocks = (EDGE - 4) // 10
    flat: Values = features.reshape(len(features), blocks, 5, blocks, 5, 3).mean((2, 4)).reshape(len(features), -1)
    return flat


def _moved(values: Values) -> Values:
    """Features of the picture moved by all of SHIFTS both ways: (moves, features)."""
    return np.stack([_features(np.roll(values, (down, right), (0, 1))) for down in SHIFTS for right in SHIFTS])


def _nearest(moved: Values, drawings: Values) -> tuple[float, int]:
    """The least mean squared distance of any of `moved` to any of `drawings`, and the number of that drawing."""
    squares = (drawings**2).sum(1)[:, None] + (moved**2).sum(1) - 2 * (drawings @ moved.T)
    nearest = squares.min(1)
    return max(0.0, float(nearest.min())) / moved.shape[1], int(nearest.argmin())
