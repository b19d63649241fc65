"""How each kind of object is drawn: flat shapes in one colour, with one darker and one lighter shade.

Every function draws in unit coordinates: x and y from -1 to 1 around the object's centre, y pointing down.
The outlines are chosen to differ at 10 pixels of height, the size of an object in a row of three at 64 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from PIL import ImageDraw

from tools.demo_model.palette import Rgb, dark_of, light_of

TRUNK: Rgb = (120, 78, 44)
FLAME: Rgb = (255, 176, 32)
PAPER: Rgb = (252, 250, 240)
Point = tuple[float, float]
Rect = tuple[float, float, float, float]  # left, top, right, bottom


class Pen:
    """Draws on `canvas` in unit coordinates: one unit is `scale` pixels, the origin lies at pixel (`x`, `y`).

    `main`, `dark` and `light` are the object's colour and its two shades.
    """

    def __init__(self, canvas: ImageDraw.ImageDraw, x: float, y: float, scale: float, color: Rgb) -> None:
        self.canvas, self.x, self.y, self.scale = canvas, x, y, scale
        self.main, self.dark, self.light = color, dark_of(color), light_of(color)

    def pixels(self, rect: Rect) -> Rect:
        """A unit rectangle in pixels."""
        left, top, right, bottom = rect
        x, y, scale = self.x, self.y, self.scale
        return x + left * scale, y + top * scale, x + right * scale, y + bottom * scale

    def width(self, units: float) -> int:
        """A line width in pixels, at least 1."""
        return max(1, round(units * self.scale))

    def rectangle(self, rect: Rect, fill: Rgb) -> None:
        """A filled rectangle."""
        self.canvas.rectangle(self.pixels(rect), fill=fill)

    def rounded(self, rect: Rect, radius: float, fill: Rgb) -> None:
        """A filled rectangle whose corners are rounded by `radius` units."""
        self.canvas.rounded_rectangle(self.pixels(rect), radius=radius * self.scale, fill=fill)

    def ellipse(self, rect: Rect, fill: Rgb) -> None:
        """A filled ellipse."""
        self.canvas.ellipse(self.pixels(rect), fill=fill)

    def ring(self, rect: Rect, units: float, fill: Rgb) -> None:
        """An ellipse drawn as a line of `units` width that lies inside the rectangle."""
        self.canvas.ellipse(self.pixels(rect), outline=fill, width=self.width(units))

    def slice(self, rect: Rect, start: int, end: int, fill: Rgb) -> None:
        """A piece of an ellipse from angle `start` to `end` in degrees, clockwise from 3 o'clock."""
        self.canvas.pieslice(self.pixels(rect), start, end, fill=fill)

    def arc(self, rect: Rect, angles: tuple[int, int], units: float, fill: Rgb) -> None:
        """A piece of an ellipse's outline, `units` wide, between two angles in degrees."""
        self.canvas.arc(self.pixels(rect), *angles, fill=fill, width=self.width(units))

    def polygon(self, *points: Point, fill: Rgb) -> None:
        """A filled polygon."""
        self.canvas.polygon([(self.x + x * self.scale, self.y + y * self.scale) for x, y in points], fill=fill)

    def line(self, *points: Point, units: float, fill: Rgb) -> None:
        """A line through points, `units` wide."""
        pixels = [(self.x + x * self.scale, self.y + y * self.scale) for x, y in points]
        self.canvas.line(pixels, fill=fill, width=self.width(units))


def draw_mug(pen: Pen) -> None:
    pen.ring((0.28, -0.42, 1.0, 0.42), 0.19, pen.dark)
    pen.rounded((-0.8, -0.7, 0.6, 0.8), 0.18, pen.main)
    pen.rectangle((-0.62, -0.5, -0.44, 0.6), pen.light)
    pen.ellipse((-0.8, -0.88, 0.6, -0.5), pen.dark)


def draw_bottle(pen: Pen) -> None:
    pen.rounded((-0.42, -0.35, 0.42, 1), 0.2, pen.main)
    pen.polygon((-0.42, -0.15), (-0.16, -0.55), (0.16, -0.55), (0.42, -0.15), fill=pen.main)
    pen.rectangle((-0.16, -0.75, 0.16, -0.5), pen.main)
    pen.rectangle((-0.2, -1, 0.2, -0.72), pen.dark)
    pen.rectangle((-0.42, 0.1, 0.42, 0.55), pen.light)


def draw_tshirt(pen: Pen) -> None:
    left = ((-0.4, -0.8), (-1.0, -0.45), (-0.8, 0.0), (-0.5, -0.16), (-0.5, 0.9))
    right = tuple((-x, y) for x, y in reversed(left))
    pen.polygon(*left, *right, fill=pen.main)
    pen.slice((-0.3, -1.06, 0.3, -0.5), 0, 180, pen.dark)
    for x in (-0.5, 0.5):
        pen.line((x, -0.16), (x, 0.1), units=0.06, fill=pen.dark)


def draw_chair(pen: Pen) -> None:
    for x in (-0.6, 0.42):
        pen.rectangle((x, 0.2, x + 0.18, 1), pen.dark)
    pen.rounded((-0.58, -1, 0.58, 0.1), 0.15, pen.main)
    pen.rectangle((-0.34, -0.75, 0.34, -0.15), pen.light)
    pen.rounded((-0.72, 0.1, 0.72, 0.38), 0.1, pen.main)


def draw_lamp(pen: Pen) -> None:
    pen.rectangle((-0.08, -0.1, 0.08, 0.85), pen.dark)
    pen.ellipse((-0.5, 0.72, 0.5, 1), pen.dark)
    pen.polygon((-0.4, -1), (0.4, -1), (0.82, 0.1), (-0.82, 0.1), fill=pen.main)
    pen.polygon((-0.25, -0.9), (-0.05, -0.9), (-0.2, 0), (-0.55, 0), fill=pen.light)


def draw_ball(pen: Pen) -> None:
    pen.ellipse((-0.85, -0.85, 0.85, 0.85), pen.dark)
    pen.ellipse((-0.83, -0.85, 0.71, 0.69), pen.main)
    pen.ellipse((-0.5, -0.58, -0.12, -0.2), pen.light)


def draw_box(pen: Pen) -> None:
    pen.polygon((0, -0.95), (0.85, -0.5), (0, -0.05), (-0.85, -0.5), fill=pen.light)
    pen.polygon((-0.85, -0.5), (0, -0.05), (0, 0.95), (-0.85, 0.45), fill=pen.main)
    pen.polygon((0.85, -0.5), (0, -0.05), (0, 0.95), (0.85, 0.45), fill=pen.dark)


def draw_tree(pen: Pen) -> None:
    pen.rectangle((-0.14, 0.3, 0.14, 1), TRUNK)
    for top, bottom, half in ((-0.25, 0.55, 0.85), (-0.7, 0.1, 0.68), (-1.1, -0.3, 0.5)):
        pen.polygon((0, top), (half, bottom), (-half, bottom), fill=pen.main)
        pen.polygon((0, top), (half, bottom), (half * 0.35, bottom), fill=pen.dark)


def draw_star(pen: Pen) -> None:
    radii = (1.0, 0.42)
    points = [(math.sin(k * math.pi / 5) * radii[k % 2], -math.cos(k * math.pi / 5) * radii[k % 2]) for k in range(10)]
    pen.polygon(*points, fill=pen.main)
    pen.polygon((0, 0), points[9], points[0], fill=pen.light)


def draw_heart(pen: Pen) -> None:
    pen.ellipse((-0.9, -0.8, 0.06, 0.14), pen.main)
    pen.ellipse((-0.06, -0.8, 0.9, 0.14), pen.main)
    pen.polygon((-0.84, -0.1), (0.84, -0.1), (0, 0.92), fill=pen.main)
    pen.ellipse((-0.66, -0.58, -0.3, -0.22), pen.light)


def draw_shoe(pen: Pen) -> None:
    upper = ((-0.95, -0.5), (-0.2, -0.5), (-0.02, -0.16), (0.55, 0.06), (0.95, 0.3), (0.98, 0.5), (-0.95, 0.5))
    pen.polygon(*upper, fill=pen.main)
    pen.rounded((-1.0, 0.4, 1.0, 0.66), 0.1, pen.dark)
    pen.ellipse((-0.9, -0.6, -0.22, -0.38), pen.dark)
    for x, y in ((-0.06, -0.22), (0.16, -0.1), (0.38, 0.0)):
        pen.line((x, y), (x - 0.22, y + 0.2), units=0.09, fill=pen.light)


def draw_bag(pen: Pen) -> None:
    pen.arc((-0.46, -0.98, 0.46, 0.4), (180, 360), 0.16, pen.dark)
    pen.polygon((-0.68, -0.3), (0.68, -0.3), (0.9, 0.85), (-0.9, 0.85), fill=pen.main)
    pen.polygon((-0.68, -0.3), (0.68, -0.3), (0.74, 0.05), (-0.74, 0.05), fill=pen.dark)
    pen.rectangle((-0.13, -0.06, 0.13, 0.24), pen.light)


def draw_hat(pen: Pen) -> None:
    pen.ellipse((-1.0, 0.2, 1.0, 0.72), pen.dark)
    pen.slice((-0.62, -0.75, 0.62, 0.35), 180, 360, pen.main)
    pen.rectangle((-0.62, -0.2, 0.62, 0.36), pen.main)
    pen.ellipse((-0.62, 0.2, 0.62, 0.52), pen.main)
    pen.rectangle((-0.62, 0.08, 0.62, 0.28), pen.light)


def draw_book(pen: Pen) -> None:
    pen.polygon((-0.08, -0.62), (-0.94, -0.84), (-0.94, 0.62), (-0.08, 0.84), fill=pen.main)
    pen.polygon((0.08, -0.62), (0.94, -0.84), (0.94, 0.62), (0.08, 0.84), fill=pen.main)
    pen.polygon((0, -0.5), (-0.78, -0.7), (-0.78, 0.48), (0, 0.68), fill=PAPER)
    pen.polygon((0, -0.5), (0.78, -0.7), (0.78, 0.48), (0, 0.68), fill=PAPER)
    pen.rectangle((-0.06, -0.56, 0.06, 0.84), pen.dark)
    for y in (-0.34, -0.02, 0.3):
        pen.line((-0.64, y - 0.12), (-0.18, y), units=0.08, fill=pen.light)
        pen.line((0.64, y - 0.12), (0.18, y), units=0.08, fill=pen.light)


def draw_plate(pen: Pen) -> None:
    pen.ellipse((-0.98, -0.3, 0.98, 0.56), pen.dark)
    pen.ellipse((-0.98, -0.4, 0.98, 0.42), pen.main)
    pen.ellipse((-0.66, -0.24, 0.66, 0.26), pen.dark)
    pen.ellipse((-0.6, -0.18, 0.6, 0.26), pen.light)


def draw_candle(pen: Pen) -> None:
    pen.line((0, -0.45), (0, -0.2), units=0.08, fill=(60, 50, 50))
    pen.polygon((0, -1.05), (0.17, -0.62), (-0.17, -0.62), fill=FLAME)
    pen.ellipse((-0.18, -0.78, 0.18, -0.4), FLAME)
    pen.rectangle((-0.3, -0.2, 0.3, 0.72), pen.main)
    pen.rectangle((-0.2, -0.1, -0.06, 0.66), pen.light)
    pen.ellipse((-0.3, -0.3, 0.3, -0.1), pen.dark)
    pen.ellipse((-0.72, 0.62, 0.72, 0.98), pen.dark)
    pen.rectangle((-0.3, 0.6, 0.3, 0.76), pen.main)


def draw_clock(pen: Pen) -> None:
    for sign in (-1, 1):
        pen.line((sign * 0.35, 0.55), (sign * 0.62, 1.0), units=0.18, fill=pen.dark)
        pen.ellipse((sign * 0.52 - 0.34, -1.0, sign * 0.52 + 0.34, -0.42), pen.dark)
    pen.ellipse((-0.82, -0.74, 0.82, 0.9), pen.main)
    pen.ellipse((-0.56, -0.48, 0.56, 0.64), PAPER)
    pen.line((0, 0.08), (0, -0.32), units=0.12, fill=(40, 40, 44))
    pen.line((0, 0.08), (0.3, 0.22), units=0.12, fill=(40, 40, 44))


def draw_umbrella(pen: Pen) -> None:
    pen.line((0, -1.0), (0, 0.76), units=0.12, fill=pen.dark)
    pen.arc((-0.06, 0.52, 0.42, 1.0), (0, 180), 0.12, pen.dark)
    pen.slice((-0.98, -0.86, 0.98, 0.9), 180, 360, pen.main)
    pen.slice((-0.34, -0.86, 0.34, 0.9), 180, 360, pen.light)


DRAWINGS: dict[str, Callable[[Pen], None]] = {
    "mug": draw_mug,
    "bottle": draw_bottle,
    "tshirt": draw_tshirt,
    "chair": draw_chair,
    "lamp": draw_lamp,
    "ball": draw_ball,
    "box": draw_box,
    "tree": draw_tree,
    "star": draw_star,
    "heart": draw_heart,
    "shoe": draw_shoe,
    "bag": draw_bag,
    "hat": draw_hat,
    "book": draw_book,
    "plate": draw_plate,
    "candle": draw_candle,
    "clock": draw_clock,
    "umbrella": draw_umbrella,
}
OBJECTS: tuple[str, ...] = tuple(DRAWINGS)
