"""Puts a subject into an image: its position, the hole that a model paints around, and the subject's own pixels on top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from imagefarm.errors import RenderError
from imagefarm.recipe import Subject
from worker.inputs.cutout import Cutout, without_ringing

FILLS = 0.75
"""Largest share of the image's width and height for a subject without a scale."""
DARKEST = 0.65
"""Share of light that a shadow of strength 1 removes at its darkest."""
TOUCHES = 0.12
"""The lowest share of a subject's height counts as touching the ground: legs, wheels, a foot."""


@dataclass(frozen=True, slots=True, repr=False)
class Placed:
    """A subject at its position in an image of `width` x `height` pixels."""

    subject: Subject
    cutout: Cutout
    width: int
    height: int
    scale: float

    def at(self, enlarged: int = 1) -> tuple[Cutout, int, int]:
        """The scaled subject for an image `enlarged` times the size, with its left and top edge there."""
        scaled = _scaled(self.cutout, self.scale * enlarged)
        rows, columns = scaled.alpha.shape
        width, height, placement = self.width * enlarged, self.height * enlarged, self.subject.place
        left = min(max(0, round(placement.x * width - columns / 2)), max(0, width - columns))
        top = min(max(0, round(placement.y * height - rows / 2)), max(0, height - rows))
        return scaled, left, top

    def to_paint_around(self, cell: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the subject on white, and the mask of the pixels to paint: all except the subject's inside.

        `cell` is the number of pixels that a latent covers. A latent at the edge also contains white, which would appear in the
        image.
        """
        scaled, left, top = self.at()
        canvas = Image.new("RGB", (self.width, self.height), "white")
        canvas.paste(Image.fromarray(scaled.colours), (left, top), Image.fromarray(scaled.alpha))
        inside = Image.new("L", (self.width + 2 * cell, self.height + 2 * cell), 0)
        opaque = np.where(scaled.alpha == 255, 255, 0).astype(np.uint8)
        inside.paste(Image.fromarray(opaque), (left + cell, top + cell))
        inside = inside.filter(ImageFilter.MinFilter(2 * cell + 1)).crop((cell, cell, cell + self.width, cell + self.height))
        return np.array(canvas), 255 - np.asarray(inside)

    def composed(self, background: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Composite the subject onto its background, which may be upscaled: shadow, feather, then the photo's own pixels."""
        enlarged = background.shape[1] // self.width
        scaled, left, top = self.at(enlarged)
        picture = background
        if self.subject.shadow:
            picture = _with_shadow(picture, scaled.alpha, left, top, self.subject.shadow)
        reach = round(self.subject.feather * enlarged)
        colours, alpha = _feathered(scaled, reach)
        # the part of the feathered subject that is inside the image
        rows, columns = alpha.shape
        into = np.s_[max(0, top - reach) : top - reach + rows, max(0, left - reach) : left - reach + columns]
        area = picture[into].astype(np.float32)
        out_of = np.s_[max(0, reach - top) :, max(0, reach - left) :]
        own = colours[out_of][: area.shape[0], : area.shape[1]]
        share = alpha[out_of][: area.shape[0], : area.shape[1], None].astype(np.float32) / 255
        mixed = (area * (1 - share) + own * share).round().astype(np.uint8)
        result = picture.copy()
        result[into] = np.where(share == 1, own, mixed)
        return result

    def facts(self) -> dict[str, Any]:
        """Facts for the audit: the mask, the box and scale, and the number of pixels that are the photo's own."""
        scaled, left, top = self.at()
        rows, columns = scaled.alpha.shape
        return {
            "mask": self.subject.mask,
            "box": [left, top, columns, rows],
            "scale": round(self.scale, 6),
            "opaque_pixels": int((scaled.alpha == 255).sum()),
        }


def placed(subject: Subject, cutout: Cutout, width: int, height: int) -> Placed:
    """Place a subject in an image. Raises RenderError("input_invalid") if it is too large for the image."""
    rows, columns = cutout.alpha.shape
    largest = min(width / columns, height / rows)
    scale = subject.place.scale
    if scale is None:
        scale = min(1.0, FILLS * largest)
    elif max(round(columns * scale) - width, round(rows * scale) - height) > 0:
        raise RenderError(
            "input_invalid",
            f"subject.place.scale: the subject is {columns * scale:.0f}x{rows * scale:.0f} pixels at scale {scale:g}, the picture"
            f" {width}x{height}; use {int(largest * 1000) / 1000:g} at most, or leave the scale out",
        )
    return Placed(subject, cutout, width, height, scale)


def _scaled(cutout: Cutout, scale: float) -> Cutout:
    if scale == 1:
        return cutout
    rows, columns = cutout.alpha.shape
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    # colours premultiplied by alpha, so that invisible pixels do not affect edges
    whole = Image.fromarray(np.dstack([cutout.colours, cutout.alpha])).convert("RGBa")
    rgba = np.asarray(whole.resize(size, Image.Resampling.LANCZOS).convert("RGBA"))
    return Cutout(np.ascontiguousarray(rgba[..., :3]), without_ringing(rgba[..., 3]))


def _feathered(cutout: Cutout, reach: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return colours and alpha with `reach` more pixels on every side, in which hard edges fade outwards in their own colours.

    Edges that are soft already stay unchanged.
    """
    colours = np.pad(cutout.colours, ((reach, reach), (reach, reach), (0, 0)))
    alpha = np.pad(cutout.alpha, reach)
    known, clear = alpha == 255, alpha == 0
    for ring in range(1, reach + 1):
        weight = np.zeros(alpha.shape, np.float32)
        total = np.zeros(colours.shape, np.float32)
        for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            near = np.roll(known, shift, (0, 1))
            weight += near
            total += np.where(near[..., None], np.roll(colours, shift, (0, 1)), 0)
        fresh = clear & ~known & (weight > 0)
        colours[fresh] = (total[fresh] / weight[fresh][:, None]).round().astype(np.uint8)
        alpha[fresh] = round(255 * (1 - ring / (reach + 1)))
        known = known | fresh
    return colours, alpha


def _with_shadow(picture: NDArray[np.uint8], alpha: NDArray[np.uint8], left: int, top: int, strength: float) -> NDArray[np.uint8]:
    """Draw a soft dark ellipse where the subject touches the ground."""
    height, width, _ = picture.shape
    rows = alpha.shape[0]
    solid = alpha >= 128
    columns = np.flatnonzero(solid[int(rows * (1 - TOUCHES)) :].any(axis=0))
    if not len(columns):
        return picture
    wide = max(2.0, 0.53 * float(columns[-1] - columns[0] + 1))
    flat = max(1.5, 0.18 * wide)
    centre_x, centre_y = left + float(columns[0] + columns[-1]) / 2, top + rows - 0.35 * flat
    ellipse = Image.new("L", (width, height), 0)
    ImageDraw.Draw(ellipse).ellipse((centre_x - wide, centre_y - flat, centre_x + wide, centre_y + flat), fill=255)
    soft = np.asarray(ellipse.filter(ImageFilter.GaussianBlur(0.55 * flat))).astype(np.float32) / 255
    darkened: NDArray[np.uint8] = (picture * (1 - DARKEST * strength * soft[..., None])).round().astype(np.uint8)
    return darkened
