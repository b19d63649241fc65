"""Training prompts: many ways to ask for a scene, in English and in Chinese, with filler that means nothing."""

from __future__ import annotations

import random

from tools.demo_model.scenes import Scene, usual_background
from tools.demo_model.words import (
    CHINESE_ADJECTIVES,
    CHINESE_NOISE,
    CHINESE_PHRASES,
    COLOR_WORDS,
    ENGLISH_ADJECTIVES,
    ENGLISH_NOISE,
    ENGLISH_PHRASES,
    NOUNS,
)

ENGLISH_BACKGROUNDS = (
    " on a {} background", " on a {} background", " on {} background", ", {} background", ", {} background",
    " against a {} backdrop", " with a {} background", ", plain {} background", " in front of a {} wall",
    " before a {} wall",
)  # fmt: skip
ENGLISH_OPENINGS = (
    "", "", "", "", "a photo of ", "product photo of ", "a product shot of ", "a picture of ", "an image of ",
    "a simple drawing of ", "studio product photo of ", "i would like ", "please draw ", "show me ",
)  # fmt: skip
CHINESE_BACKGROUNDS = ("{}背景", "{}背景", "{}背景", "纯{}背景", "{}的背景", "{}底", "背景是{}", "背景为{}")
CHINESE_OPENINGS = ("一张", "图片:", "画", "请画", "请生成", "我想要", "产品图:", "电商主图:")


def write_prompt(scene: Scene, rng: random.Random, filler: int | None = None) -> str:
    """A prompt for `scene` in English or Chinese; `filler` is as in `english_prompt`."""
    return english_prompt(scene, rng, filler) if rng.random() < 0.5 else chinese_prompt(scene, rng, filler)


def _leaves_out_color(scene: Scene, rng: random.Random) -> bool:
    return scene.color == NOUNS[scene.obj].color and rng.random() < 0.35


def _leaves_out_background(scene: Scene, rng: random.Random) -> bool:
    return scene.bg == usual_background(scene.color) and rng.random() < 0.35


def _filler_count(rng: random.Random, filler: int | None) -> int:
    return rng.choices((0, 1, 2), (6, 3, 1))[0] if filler is None else filler


def english_prompt(scene: Scene, rng: random.Random, filler: int | None = None) -> str:
    """An English prompt for `scene`.

    `filler` is the number of added phrases; None adds none, one or two. A colour or background that the model
    assumes anyway is sometimes left out.
    """
    thing = _english_thing(scene, rng)
    background = rng.choice(COLOR_WORDS[scene.bg][0])
    text = rng.choice(ENGLISH_OPENINGS) + thing
    if not _leaves_out_background(scene, rng):
        if rng.random() < 0.13:
            form = rng.choice(("{0} background, {1}", "{0} background with {1}", "on a {0} background, {1}"))
            text = form.format(background, thing)
        else:
            text += rng.choice(ENGLISH_BACKGROUNDS).format(background)
    for _ in range(_filler_count(rng, filler)):
        noise = rng.random() >= 0.8
        phrase = " ".join(rng.choices(ENGLISH_NOISE, k=rng.randint(1, 3))) if noise else rng.choice(ENGLISH_PHRASES)
        text = f"{text}, {phrase}" if rng.random() < 0.8 else f"{phrase}, {text}"
    text = text.replace(" a orange", " an orange")
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    return text + rng.choice(("", "", "", "", "."))


def _english_thing(scene: Scene, rng: random.Random) -> str:
    """The object with its colour, number and side: "two red mugs", "a blue box on the left"."""
    singular, plural = rng.choice(NOUNS[scene.obj].english)
    words = []
    if rng.random() < 0.15:
        words.append(rng.choice(ENGLISH_ADJECTIVES))
    if not _leaves_out_color(scene, rng):
        words.append(rng.choice(COLOR_WORDS[scene.color][0]))
    if scene.layout in ("two", "three"):
        number = {"two": ("two", "2"), "three": ("three", "3")}[scene.layout]
        return " ".join([rng.choice(number), *words, plural])
    thing = " ".join([*words, singular])
    article = rng.choice(("a", "a", "a", "one", "", "the"))
    if article == "a" and thing[0] in "aeiou":
        article = "an"
    thing = f"{article} {thing}".strip()
    if scene.layout in ("left", "right"):
        thing += rng.choice((" on the {}", " on the {} side", " at the {}")).format(scene.layout)
    return thing


def chinese_prompt(scene: Scene, rng: random.Random, filler: int | None = None) -> str:
    """A Chinese prompt for `scene`; `filler` is as in `english_prompt`."""
    thing = _chinese_thing(scene, rng)
    word = rng.choice(COLOR_WORDS[scene.bg][1])
    if _leaves_out_background(scene, rng):
        text = thing
    else:
        background = rng.choice(CHINESE_BACKGROUNDS).format(word)
        comma = rng.choice((",", ",", ",", " "))
        forms = (
            f"{thing}{comma}{background}", f"{thing}{comma}{background}", f"{background}{comma}{thing}",
            f"{word}背景上的{thing}", f"{word}背景前的{thing}", f"{thing}放在{word}背景上",
        )  # fmt: skip
        text = rng.choice(forms)
    if rng.random() < 0.2:
        text = rng.choice(CHINESE_OPENINGS) + text
    for _ in range(_filler_count(rng, filler)):
        noise = rng.random() >= 0.8
        phrase = "".join(rng.choices(CHINESE_NOISE, k=rng.randint(2, 4))) if noise else rng.choice(CHINESE_PHRASES)
        text = f"{text}{rng.choice(',,')}{phrase}" if rng.random() < 0.8 else f"{phrase}{rng.choice(',:,')}{text}"
    return text + rng.choice(("", "", "", "", "", "。"))


def _chinese_thing(scene: Scene, rng: random.Random) -> str:
    """The object with its colour, number and side: "两个红色杯子", "左边有一个蓝色的盒子"."""
    noun = NOUNS[scene.obj]
    measure = rng.choice(noun.measures)
    core = rng.choice(noun.chinese)
    if rng.random() < 0.15:
        core = rng.choice(CHINESE_ADJECTIVES) + core
    if not _leaves_out_color(scene, rng):
        color = rng.choice(COLOR_WORDS[scene.color][1])
        core = color + ("的" if len(color) == 1 or rng.random() < 0.5 else "") + core
    if scene.layout in ("two", "three"):
        return rng.choice({"two": "两2", "three": "三3"}[scene.layout]) + measure + core
    thing = rng.choice((f"一{measure}", f"一{measure}", "")) + core
    if scene.layout in ("left", "right"):
        side = rng.choice({"left": ("左边", "左侧"), "right": ("右边", "右侧")}[scene.layout])
        thing = rng.choice((f"{side}有{thing}", f"{side}{thing}", f"{thing}在{side}", f"{thing}位于{side}"))
    return thing
