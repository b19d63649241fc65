"""A recipe as curl command, Python program and CLI command. The prompt is quoted, so it cannot change the command."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from imagefarm.recipe import Subject, SubjectPlacement


@dataclass(frozen=True, slots=True)
class CodeSamples:
    """One request in three languages."""

    curl: str
    python: str
    cli: str


def write_code_samples(url: str, recipe: dict[str, Any], count: int) -> CodeSamples:
    """Samples that ask the farm at `url` for `count` images of this recipe."""
    asked = {name: value for name, value in recipe.items() if value not in (None, "", [])}
    if count > 1:
        asked["count"] = count
    body = json.dumps(asked, ensure_ascii=False)
    curl = f"curl {shlex.quote(url + '/api/v1/jobs')} -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    arguments = ", ".join(f"{name}={value!r}" for name, value in asked.items() if name != "prompt")
    python = (
        "from imagefarm import Client\n\n"
        f"with Client({url!r}) as farm:\n"
        f"    job = farm.jobs.submit({asked['prompt']!r}, {arguments})\n"
        '    farm.jobs.download(farm.jobs.wait(job), "pictures")'
    )
    return CodeSamples(curl, python, shlex.join(_command(asked)))


def _command(asked: dict[str, Any]) -> list[str]:
    words = ["imagefarm", "submit", "--model", str(asked["model"]), "--size", f"{asked['width']}x{asked['height']}"]
    for option, name in (
        ("--steps", "steps"),
        ("--guidance", "guidance"),
        ("--sampler", "sampler"),
        ("--seed", "seed"),
        ("--count", "count"),
        ("--negative", "negative_prompt"),
        ("--init-image", "init_image"),
        ("--mask", "mask"),
        ("--strength", "strength"),
    ):
        if name in asked:
            words += [option, str(asked[name])]
    for lora in asked.get("loras", []):
        words += ["--lora", f"{lora['name']}:{lora['weight']}"]
    if "subject" in asked:
        words += _subject(asked["subject"])
    if "upscale" in asked:
        words += ["--upscale", f"{asked['upscale']['model']}:{asked['upscale']['scale']}"]
    if asked.get("format", "png") != "png":
        words += ["--format", str(asked["format"])]
    if "quality" in asked:
        words += ["--quality", str(asked["quality"])]
    return [*words, "--out", "pictures", "--", str(asked["prompt"])]


def _subject(subject: dict[str, Any]) -> list[str]:
    """The CLI options of a subject: its image and mask, and other fields that differ from the default."""
    words = ["--subject", str(subject["image"]), "--subject-mask", str(subject["mask"])]
    usual = Subject.model_fields
    placement = SubjectPlacement.model_validate(subject["place"])
    if placement != SubjectPlacement():
        numbers = (placement.x, placement.y, placement.scale)
        words += ["--subject-place", ",".join(str(number) for number in numbers if number is not None)]
    for name in ("shadow", "feather"):
        if subject[name] != usual[name].default:
            words += [f"--{name}", str(subject[name])]
    return words
