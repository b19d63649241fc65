"""Measures a model: does the checker read back what the prompts asked for?

`python -m tools.demo_model.evaluate models/demo --edge 64 --count 240`; without a model it measures the checker.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image

from tools.demo_model.checker import matches, read_picture
from tools.demo_model.drawing import Artist
from tools.demo_model.palette import COLORS
from tools.demo_model.products import OBJECTS
from tools.demo_model.prompts import chinese_prompt, english_prompt
from tools.demo_model.scenes import LAYOUTS, Scene, render, unseen_scene
from tools.demo_model.words import COLOR_WORDS

SEED = 777
Results = list[dict[str, bool]]


def examples(count: int) -> tuple[list[Scene], list[str]]:
    """`count` scenes whose (object, colour, background) training never saw, and prompts, by turns Chinese and English."""
    rng = random.Random(SEED)
    scenes = [unseen_scene(rng) for _ in range(count)]
    return scenes, [english_prompt(s, rng) if k % 2 else chinese_prompt(s, rng) for k, s in enumerate(scenes)]


def names_color(scene: Scene, prompt: str) -> bool:
    """Whether the prompt says the object's colour, rather than leave it to the model."""
    english, chinese = COLOR_WORDS[scene.color]
    return any(word in prompt.lower() for word in (*english, *chinese))


def check(images: Sequence[Image.Image], scenes: Sequence[Scene]) -> Results:
    """For every picture, which of its four attributes are as in its scene, and whether all are."""
    results = [matches(image, s.obj, s.color, s.bg, s.layout) for image, s in zip(images, scenes, strict=True)]
    return [{**result, "all": all(result.values())} for result in results]


def shares(results: Results, chosen: Sequence[bool] | None = None) -> dict[str, float]:
    """The part of the (chosen) pictures that are right, by attribute."""
    picked = [r for k, r in enumerate(results) if chosen is None or chosen[k]]
    return {name: round(sum(r[name] for r in picked) / len(picked), 4) for name in picked[0]} if picked else {}


def evaluate(model: Path, edge: int, count: int, steps: int, guidance: float) -> dict[str, object]:
    """Draw and check `count` unseen examples of `edge` pixels. Returns the measurements, ready for JSON."""
    scenes, prompts = examples(count)
    artist, start = Artist(model), time.monotonic()
    images = artist.draw(prompts, range(90000, 90000 + count), edge, steps, guidance)
    seconds = time.monotonic() - start
    results = check(images, scenes)

    def split(names: Sequence[str], of: Callable[[Scene], str], attribute: str) -> dict[str, float]:
        parts = {name: shares(results, [of(scene) == name for scene in scenes]) for name in names}
        return {name: part[attribute] for name, part in parts.items() if part}

    for k, result in enumerate(results):
        if not result["all"]:
            wrong = [name for name in ("object", "color", "background", "layout") if not result[name]]
            print(f"wrong {wrong}: {prompts[k]!r} reads as {read_picture(images[k])}")
    return {
        "edge": edge,
        "count": count,
        "steps": steps,
        "guidance": guidance,
        "seconds_per_picture": round(seconds / count, 4),
        "model": shares(results),
        "color_named": shares(results, [names_color(s, prompt) for s, prompt in zip(scenes, prompts, strict=True)]),
        "chinese": shares(results, [k % 2 == 0 for k in range(count)]),
        "english": shares(results, [k % 2 == 1 for k in range(count)]),
        "object_by_kind": split(OBJECTS, lambda scene: scene.obj, "object"),
        "all_by_layout": split(LAYOUTS, lambda scene: scene.layout, "all"),
        "color_by_color": split(COLORS, lambda scene: scene.color, "color"),
    }


def evaluate_checker(edge: int, count: int) -> dict[str, float]:
    """The part of `count` unseen scenes, drawn by the program itself, that the checker reads right: a model's ceiling."""
    rng = random.Random(SEED)
    scenes = [unseen_scene(rng) for _ in range(count)]
    return shares(check([render(scene, edge, edge, rng) for scene in scenes], scenes))


def main() -> None:
    """Print the measurements as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="model folder; without one, the checker itself is measured")
    parser.add_argument("--edge", type=int, default=64, help="picture size in pixels")
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.model is None:
        print(json.dumps(evaluate_checker(options.edge, options.count), indent=1))
    else:
        measured = evaluate(options.model, options.edge, options.count, options.steps, options.guidance)
        print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
