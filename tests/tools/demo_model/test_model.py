"""The model that ships draws what English and Chinese prompts ask for."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.demo_model.checker import matches, read_picture
from tools.demo_model.drawing import Artist
from tools.demo_model.words import COLOR_WORDS, NOUNS

MODEL = Path(__file__).parents[3] / "models" / "demo"
ASKED = (
    ("a red mug on a white background", "mug", "red", "white", "center"),
    ("白色背景上的红色马克杯", "mug", "red", "white", "center"),
    ("product photo of a blue bottle, plain yellow background, studio lighting", "bottle", "blue", "yellow", "center"),
    ("一件黑色的T恤,粉色背景,电商主图", "tshirt", "black", "pink", "center"),
    ("two green chairs, white background", "chair", "green", "white", "two"),
    ("左边有一个紫色的球,白色背景", "ball", "purple", "white", "left"),
)


@pytest.fixture(scope="module")
def artist() -> Iterator[Artist]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Artist(MODEL)
    torch.set_num_threads(threads)


def test_small_and_safe_files() -> None:
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja", ".md"}


def test_the_card_lists_the_words() -> None:
    card = (MODEL / "README.md").read_text(encoding="utf-8")
    for noun in NOUNS.values():
        for word in (*(singular for singular, _ in noun.english), *noun.chinese):
            assert word in card, word
    for english, chinese in COLOR_WORDS.values():
        for word in (*english, *chinese):
            assert word in card, word


@pytest.mark.parametrize("edge", [64, 128])
def test_draws_what_is_asked_for(artist: Artist, edge: int) -> None:
    images = artist.draw([asked[0] for asked in ASKED], range(len(ASKED)), edge)
    for image, (prompt, *wanted) in zip(images, ASKED, strict=True):
        assert image.size == (edge, edge)
        assert all(matches(image, *wanted).values()), (prompt, read_picture(image))


def test_a_seed_is_a_picture(artist: Artist) -> None:
    prompt = ASKED[0][0]
    first, second, third = (np.asarray(artist.draw([prompt], [seed], 64)[0], np.int16) for seed in (7, 7, 8))
    assert (first == second).all()
    assert (first != third).any()
