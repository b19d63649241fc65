"""Draws a contact sheet of hand-written prompts, to look at: `python -m tools.demo_model.sheet models/demo sheet.png`"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from tools.demo_model.drawing import Artist

CELL = 160  # pixels of the sheet per picture
COLUMNS = 8
PROMPTS = (
    "a red mug on a white background",
    "白色背景上的红色杯子",
    "product photo of a blue bottle, plain yellow background, studio lighting",
    "电商主图:粉色背景,一件黑色T恤,高清",
    "A green chair against a pink backdrop",
    "一盏黄色的台灯,蓝色背景",
    "a pink ball on a black background",
    "紫色盒子,白色背景,产品摄影",
    "green tree, red background",
    "蓝色背景上的一颗黄色五角星",
    "a red heart on a gray background",
    "一双蓝色的运动鞋,白色背景",
    "a brand new orange handbag, gray background, e-commerce listing, high quality",
    "一顶黑色的帽子,橙色背景",
    "an open purple book on a yellow background",
    "白色盘子,蓝色背景,产品图",
    "a red candle in front of a black wall",
    "一个灰色的闹钟,粉色背景",
    "an orange umbrella, blue background",
    "两把紫色的雨伞,白色背景",
    "two red hearts on a white background",
    "三件蓝色T恤,白色背景",
    "a yellow lamp on the left, green background",
    "右边有一个红色马克杯,黄色背景",
    "three green bottles, gray background",
    "两把白色椅子,红色背景",
    "three black shoes on an orange background",
    "左侧一个紫色的球,白底",
    "Summer sale! black mug, yellow background",
    "请画一个放在绿色背景上的粉色爱心",
    "a white cube on the right, black background",
    "两本红色的书,灰色背景",
    "I would like a red chair please",
    "mug",
    "a star",
    "一把雨伞",
    "A cheerful summer advertisement with a pink lamp in front of a plain blue wall, bright and airy, for our web shop",
    "请帮我生成一张商品图,里面是一个黄色的杯子,背景是黑色",
    "GREEN T-SHIRT!!!",
    "a large grey leather bag, white background, soft shadow",
)


def compose(images: Sequence[Image.Image]) -> Image.Image:
    """The pictures, numbered from 1, in rows of COLUMNS."""
    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL, rows * CELL), "white")
    draw = ImageDraw.Draw(sheet)
    for k, image in enumerate(images):
        x, y = k % COLUMNS * CELL, k // COLUMNS * CELL
        sheet.paste(image.resize((CELL - 4, CELL - 4), Image.Resampling.BICUBIC), (x + 2, y + 2))
        draw.text((x + 5, y + 4), str(k + 1), fill="black", stroke_width=1, stroke_fill="white")
    return sheet


def main() -> None:
    """Write the sheet; with --seeds, one prompt by that many seeds, at 64 and at 128 pixels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--edge", type=int, default=64, help="picture size in pixels")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    artist = Artist(options.model)
    if options.seeds:
        prompts = [PROMPTS[0]] * options.seeds
        images = [i for edge in (64, 128) for i in artist.draw(prompts, range(options.seeds), edge, options.steps)]
    else:
        images = artist.draw(PROMPTS, range(1000, 1000 + len(PROMPTS)), options.edge, options.steps)
    compose(images).save(options.out)


if __name__ == "__main__":
    main()
