"""A recipe as a command or a program to copy: curl, Python, the CLI. Whatever the prompt holds stays one quoted text."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

BEYOND_CLI = ("init_image", "mask", "subject", "strength", "upscale", "loras")
"""Fields for which the command line has no option."""


@dataclass(frozen=True, slots=True)
class Snippets:
    """The same request in three languages; `cli` is empty where the command line has no words for it."""

    curl: str
    python: str
    cli: str


def snippets(url: str, recipe: dict[str, Any], count: int) -> Snippets:
    """How to ask the farm at `url` for `count` pictures of this recipe again."""
    asked = {name: value for name, value in recipe.items() if value not in (None, "", [])}
    if count > 1:
        asked["count"] = count
    body = json.dumps(asked, ensure_ascii=False)
    curl = f"curl {shlex.quote(url + '/api/v1/jobs')} -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    arguments = ", ".join(f"{name}={value!r}" for name, value in asked.items() if name != "prompt")
    python = (
        "from imagefarm import Client\n\n"
        f"with Client({url!r}) as farm:\n"
        f"    job = farm.submit({asked['prompt']!r}, {arguments})\n"
        '    farm.download(farm.wait(job), "pictures")'
    )
    words = ["imagefarm", "submit", "--model", str(asked["model"]), "--size", f"{asked['width']}x{asked['height']}"]
    for option, name in (
        ("--steps", "steps"),
        ("--guidance", "guidance"),
        ("--sampler", "sampler"),
        ("--seed", "seed"),
        ("--count", "count"),
        ("--negative", "negative_prompt"),
    ):
        if name in asked:
            words += [option, str(asked[name])]
    words += ["--out", "pictures", "--", str(asked["prompt"])]
    if any(asked.get(name) for name in BEYOND_CLI) or asked.get("format", "png") != "png":
        return Snippets(curl, python, "")
    return Snippets(curl, python, shlex.join(words))
