"""A contact sheet: an image that shows many images, each with its caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

MARGIN = 16
CAPTION_HEIGHT = 26
MIN_SIDE = 176
PAPER = (250, 250, 248)
INK = (40, 40, 44)


def write_contact_sheet(pictures: Sequence[tuple[Path, str]], target: Path, *, columns: int = 4) -> None:
    """Write the pictures (file, caption), enlarged smoothly to at least 176 pixels, to `target` in rows of `columns`.

    Captions are drawn in Pillow's own font, which has Latin letters only.
    """
    opened = [(Image.open(path).convert("RGB"), caption) for path, caption in pictures]
    side = max(MIN_SIDE, *(max(picture.size) for picture, _ in opened))
    rows = -(-len(opened) // columns)
    cell_width, cell_height = side + MARGIN, side + CAPTION_HEIGHT + MARGIN
    sheet = Image.new("RGB", (columns * cell_width + MARGIN, rows * cell_height + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for place, (picture, caption) in enumerate(opened):
        left = MARGIN + place % columns * cell_width
        top = MARGIN + place // columns * cell_height
        scale = side / max(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        enlarged = picture.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(enlarged, (left + (side - size[0]) // 2, top + (side - size[1]) // 2))
        draw.text((left + side // 2, top + side + CAPTION_HEIGHT // 2), caption, INK, font, anchor="mm")
    sheet.save(target)
