"""The checker reads drawings back, and does not see products where there are none."""

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tools.demo_model.checker import matches, read_picture
from tools.demo_model.products import OBJECTS
from tools.demo_model.scenes import LAYOUTS, Scene, render

PAIRS = (("red", "white"), ("gray", "orange"), ("white", "blue"), ("black", "green"))


@pytest.mark.parametrize("edge", [64, 128])
def test_reads_nearly_every_drawing(edge: int) -> None:
    rng = random.Random(edge)
    scenes = [Scene(obj, *rng.choice(PAIRS), rng.choice(LAYOUTS)) for obj in OBJECTS for _ in range(3)]
    results = [matches(render(s, edge, edge, rng), s.obj, s.color, s.bg, s.layout) for s in scenes]
    for name in ("object", "color", "background", "layout"):
        assert sum(result[name] for result in results) >= 0.95 * len(scenes), name


def test_tells_every_attribute_apart() -> None:
    image = render(Scene("mug", "red", "white", "left"), 64, 64, random.Random(1))
    assert all(matches(image, "mug", "red", "white", "left").values())
    assert matches(image, "bottle", "blue", "black", "two") == dict.fromkeys(("object", "color", "background", "layout"), False)


def test_sees_no_product_in_other_pictures() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    blob = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(blob).rectangle((8, 24, 58, 38), fill=(36, 98, 214))
    for image in (Image.fromarray(noise), blob, Image.new("RGB", (64, 64), "white")):
        assert read_picture(image).obj is None
    assert read_picture(Image.new("RGB", (64, 64), (250, 150, 190))).bg == "pink"
