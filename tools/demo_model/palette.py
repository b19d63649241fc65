"""The ten colours of the demo scenes, and the lighter and darker shades that the drawings are built from."""

from __future__ import annotations

Rgb = tuple[int, int, int]

PALETTE: dict[str, Rgb] = {
    "red": (214, 40, 40),
    "orange": (242, 128, 28),
    "yellow": (250, 214, 40),
    "green": (46, 160, 67),
    "blue": (36, 98, 214),
    "purple": (128, 56, 176),
    "pink": (250, 150, 190),
    "gray": (132, 134, 140),
    "black": (30, 30, 34),
    "white": (246, 246, 246),
}
COLORS: tuple[str, ...] = tuple(PALETTE)


def shade(color: Rgb, factor: float) -> Rgb:
    """Darken `color` (RGB, 0..255) by `factor` below 1, or move it towards white by `factor - 1` above 1."""
    if factor <= 1:
        red, green, blue = (channel * factor for channel in color)
    else:
        red, green, blue = (channel + (255 - channel) * (factor - 1) for channel in color)
    return clamp(red), clamp(green), clamp(blue)


def clamp(value: float) -> int:
    """Cut a channel value to 0..255 and drop its fraction."""
    return int(max(0.0, min(255.0, value)))


def dark_of(color: Rgb) -> Rgb:
    """The shade of an object's shaded side; on a near-black colour it has to be lighter to be seen."""
    return shade(color, 0.68) if sum(color) > 180 else shade(color, 1.22)


def light_of(color: Rgb) -> Rgb:
    """The shade of an object's highlight; on a near-white colour it has to be darker to be seen."""
    return shade(color, 1.35) if sum(color) < 675 else shade(color, 0.88)


def floor_of(background: Rgb) -> Rgb:
    """The colour of the floor under a wall of colour `background`."""
    return shade(background, 0.93) if sum(background) > 150 else shade(background, 1.07)
