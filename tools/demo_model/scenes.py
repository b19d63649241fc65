"""Procedural product pictures: one kind of object in one colour before a wall and a floor of another colour."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw, ImageFilter

from tools.demo_model.palette import COLORS, PALETTE, Rgb, clamp, floor_of
from tools.demo_model.products import DRAWINGS, OBJECTS, Pen

LAYOUTS: tuple[str, ...] = ("center", "left", "right", "two", "three")
# layout: (half height of an object as a part of the shorter edge, its centres as parts of the width)
PLACES: dict[str, tuple[float, tuple[float, ...]]] = {
    "center": (0.36, (0.5,)),
    "left": (0.235, (0.25,)),
    "right": (0.235, (0.75,)),
    "two": (0.215, (0.26, 0.74)),
    "three": (0.15, (0.175, 0.5, 0.825)),
}
SUPERSAMPLING = 3


@dataclass(frozen=True)
class Scene:
    """What a picture shows: names from OBJECTS, COLORS (twice) and LAYOUTS."""

    obj: str
    color: str
    bg: str
    layout: str = "center"

    def labels(self) -> tuple[int, int, int, int]:
        """Class numbers of object, colour, background and layout."""
        return OBJECTS.index(self.obj), COLORS.index(self.color), COLORS.index(self.bg), LAYOUTS.index(self.layout)


LABEL_SIZES: tuple[int, int, int, int] = (len(OBJECTS), len(COLORS), len(COLORS), len(LAYOUTS))


def usual_background(color: str) -> str:
    """The background of a prompt that names none: white, or blue behind a white object."""
    return "blue" if color == "white" else "white"


def random_scene(rng: random.Random) -> Scene:
    """Draw a scene: every object and colour equally often, the usual background and the centre more often."""
    color = rng.choice(COLORS)
    others = [name for name in COLORS if name != color]
    bg = rng.choice(others) if rng.random() < 0.75 else usual_background(color)
    layout = rng.choices(LAYOUTS, (4, 1.3, 1.3, 1.5, 1.5))[0]
    return Scene(rng.choice(OBJECTS), color, bg, layout)


def held_out(scene: Scene) -> bool:
    """Whether the scene's (object, colour, background) is kept from training: about one triple in ten."""
    return zlib.crc32(f"{scene.obj}|{scene.color}|{scene.bg}".encode()) % 10 == 0


def training_scene(rng: random.Random) -> Scene:
    """A random scene that is not held out."""
    while held_out(scene := random_scene(rng)):
        pass
    return scene


def unseen_scene(rng: random.Random) -> Scene:
    """A random scene whose triple is held out of training."""
    while not held_out(scene := random_scene(rng)):
        pass
    return scene


def with_object(scene: Scene, obj: str) -> Scene:
    """The same scene with another kind of object."""
    return replace(scene, obj=obj)


def _jittered(color: Rgb, rng: random.Random | None, amount: float) -> Rgb:
    if rng is None:
        return color
    red, green, blue = (clamp(channel + rng.uniform(-amount, amount)) for channel in color)
    return red, green, blue


def render(
    scene: Scene, width: int, height: int, rng: random.Random | None = None, supersampling: int = SUPERSAMPLING
) -> Image.Image:
    """Draw `scene` as an RGB picture of `width` x `height` pixels.

    With `rng`, place, size and colours vary a little: position by 1.2 % of the edge, size by 4 %, channels by 5 of 255.
    Without it the drawing is canonical. `supersampling` times the size is drawn and averaged down.
    """

    def jitter(amount: float) -> float:
        return rng.uniform(-amount, amount) if rng is not None else 0.0

    big_width, big_height = width * supersampling, height * supersampling
    edge = min(big_width, big_height)
    wall = _jittered(PALETTE[scene.bg], rng, 4)
    picture = Image.new("RGB", (big_width, big_height), wall)
    horizon = big_height / 2 + edge * 0.3
    ImageDraw.Draw(picture).rectangle((0, horizon, big_width, big_height), fill=floor_of(wall))

    half, centres = PLACES[scene.layout]
    columns = [big_width * (centre + jitter(0.012 if len(centres) == 1 else 0.009)) for centre in centres]
    scale = edge * half * (1 + jitter(0.04))
    row = big_height / 2 + jitter(0.012) * edge
    color = _jittered(PALETTE[scene.color], rng, 5)

    shadow = _shadow(big_width, big_height, columns, row, scale)
    picture.paste(Image.new("RGB", picture.size, (0, 0, 0)), (0, 0), shadow)
    canvas = ImageDraw.Draw(picture)
    for column in columns:
        DRAWINGS[scene.obj](Pen(canvas, column, row, scale, color))
    return picture.resize((width, height), Image.Resampling.BOX)


def _shadow(width: int, height: int, columns: list[float], row: float, scale: float) -> Image.Image:
    """A mask (mode L, 0..105) of a soft ellipse under each object, blurred at a quarter of the size to save time."""
    part = 4
    mask = Image.new("L", (width // part, height // part), 0)
    draw = ImageDraw.Draw(mask)
    for column in columns:
        left, right = (column - 0.8 * scale) / part, (column + 0.8 * scale) / part
        draw.ellipse((left, (row + 0.86 * scale) / part, right, (row + 1.1 * scale) / part), fill=105)
    blurred = mask.filter(ImageFilter.GaussianBlur(min(width, height) / part * 0.018))
    return blurred.resize((width, height), Image.Resampling.BILINEAR)
