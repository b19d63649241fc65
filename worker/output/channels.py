"""Channel files from a finished image: fitted to a size, and encoded within a byte limit where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagefarm.imaging.channels import Channel
from imagefarm.imaging.encode import encode_picture
from imagefarm.imaging.labels import MADE
from imagefarm.recipe import Format

LANCZOS = Image.Resampling.LANCZOS
Box = tuple[int, int, int, int]
"""Left, top, width, height."""


@dataclass(frozen=True, slots=True, repr=False)
class ChannelPicture:
    """A channel's file and its quality; None for PNG."""

    channel: Channel
    data: bytes
    quality: int | None

    @property
    def fits(self) -> bool:
        """Whether the file is within the channel's byte limit."""
        return self.channel.max_bytes is None or len(self.data) <= self.channel.max_bytes


def make_channel(
    pixels: NDArray[np.uint8], channel: Channel, texts: Mapping[str, str], *, subject: Box | None = None, source: str = MADE
) -> ChannelPicture:
    """Make one channel's file of an image (height, width, 3). `subject` is where product mode placed its subject."""
    fitted = fit(pixels, channel, subject)
    if channel.format == "png":
        return ChannelPicture(channel, encode_picture(fitted, texts, "png", source=source), None)
    return _encode(fitted, channel, channel.format, texts, source)


def fit(pixels: NDArray[np.uint8], channel: Channel, subject: Box | None = None) -> NDArray[np.uint8]:
    """The pixels in the channel's size."""
    picture = Image.fromarray(pixels)
    size = (channel.width, channel.height)
    if channel.fit == "crop":
        focus = (0.5, 0.5)
        if channel.focus == "subject" and subject is not None:
            left, top, width, height = subject
            focus = ((left + width / 2) / picture.width, (top + height / 2) / picture.height)
        return np.array(picture.resize(size, LANCZOS, box=crop_box(picture.size, size, focus)))
    room = (max(1, channel.width * (1 - 2 * channel.margin)), max(1, channel.height * (1 - 2 * channel.margin)))
    scale = min(room[0] / picture.width, room[1] / picture.height)
    inner = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    canvas = Image.new("RGB", size, channel.background)
    canvas.paste(picture.resize(inner, LANCZOS), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return np.array(canvas)


def crop_box(have: Sequence[int], want: Sequence[int], focus: tuple[float, float]) -> tuple[float, float, float, float]:
    """The largest part of an image of size `have` with the aspect ratio of `want`, as close to `focus` (shares) as possible."""
    scale = min(have[0] / want[0], have[1] / want[1])
    width, height = want[0] * scale, want[1] * scale
    left = min(max(0.0, focus[0] * have[0] - width / 2), have[0] - width)
    top = min(max(0.0, focus[1] * have[1] - height / 2), have[1] - height)
    return left, top, left + width, top + height


def _encode(
    pixels: NDArray[np.uint8], channel: Channel, picture_format: Format, texts: Mapping[str, str], source: str
) -> ChannelPicture:
    """The best quality within the limit, by bisection; the lowest quality if none is."""
    best = encode_picture(pixels, texts, picture_format, channel.quality, source=source)
    if channel.max_bytes is None or len(best) <= channel.max_bytes:
        return ChannelPicture(channel, best, channel.quality)
    low, high, found = 1, channel.quality - 1, None
    while low <= high:
        quality = (low + high) // 2
        data = encode_picture(pixels, texts, picture_format, quality, source=source)
        if len(data) <= channel.max_bytes:
            found, low = ChannelPicture(channel, data, quality), quality + 1
        else:
            best, high = data, quality - 1
    return found or ChannelPicture(channel, best, 1)
