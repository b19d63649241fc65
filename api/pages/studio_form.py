"""The studio's form: what a model allows, what was typed, and how both become a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imagefarm.catalogue import ModelEntry
from imagefarm.recipe import JobRequest

SQUARES = (512, 768, 1024)
SHAPES: tuple[tuple[str, float], ...] = (("portrait", 3 / 4), ("landscape", 4 / 3), ("tall", 9 / 16), ("wide", 16 / 9))
COUNTS = (1, 2, 4, 8, 16)
FIELDS = ("prompt", "negative_prompt", "model", "size", "width", "height", "steps", "guidance", "count", "seed", "keep")


@dataclass(frozen=True, slots=True)
class Size:
    """A size to choose. `name` says its shape."""

    width: int
    height: int
    name: str

    @property
    def value(self) -> str:
        return f"{self.width}x{self.height}"


def sizes_of(entry: ModelEntry) -> tuple[Size, ...]:
    """The sizes to offer: the model's own if it has a list, else squares and shapes of about its default's area."""
    limits = entry.limits
    if limits.sizes:
        return tuple(Size(width, height, _shape(width, height)) for width, height in limits.sizes)
    found = [Size(side, side, "square") for side in SQUARES if limits.min_side <= side <= limits.max_side]
    area = entry.defaults.width * entry.defaults.height
    for name, ratio in SHAPES:
        width, height = (_fit(side, entry) for side in ((area * ratio) ** 0.5, (area / ratio) ** 0.5))
        if width * height <= limits.max_pixels:
            found.append(Size(width, height, name))
    default = Size(entry.defaults.width, entry.defaults.height, _shape(entry.defaults.width, entry.defaults.height))
    return tuple(found) if any(size.value == default.value for size in found) else (default, *found)


def counts_of(entry: ModelEntry) -> tuple[int, ...]:
    """How many pictures to offer at once."""
    return tuple(count for count in COUNTS if count <= entry.limits.max_count)


def typed(given: Mapping[str, str]) -> dict[str, str]:
    """What was typed, by field; absent fields are empty."""
    return {name: given.get(name, "").strip() for name in FIELDS}


def from_recipe(recipe: dict[str, Any], count: int) -> dict[str, str]:
    """The fields that would make this recipe again."""
    return {
        "prompt": str(recipe["prompt"]),
        "negative_prompt": str(recipe.get("negative_prompt") or ""),
        "model": str(recipe["model"]),
        "size": f"{recipe['width']}x{recipe['height']}",
        "width": "",
        "height": "",
        "steps": str(recipe["steps"]),
        "guidance": f"{float(recipe['guidance']):g}",
        "count": str(count),
        "seed": str(recipe["seed"]),
        "keep": "",
    }


def request_of(fields: Mapping[str, str], entry: ModelEntry) -> JobRequest:
    """The request that the form makes. Raises ValidationError where a field is off; the catalogue checks the rest."""
    width, _, height = fields["size"].partition("x")
    asked: dict[str, Any] = {
        "prompt": fields["prompt"],
        "model": entry.name,
        "width": fields["width"] or width or None,
        "height": fields["height"] or height or None,
        "steps": fields["steps"] or None,
        "guidance": fields["guidance"] or None,
        "count": fields["count"] or 1,
        "seed": fields["seed"] or None,
    }
    if "negative_prompt" in entry.features:
        asked["negative_prompt"] = fields["negative_prompt"]
    return JobRequest.model_validate({name: value for name, value in asked.items() if value is not None})


def _fit(side: float, entry: ModelEntry) -> int:
    limits = entry.limits
    near = round(side / limits.multiple) * limits.multiple
    return max(limits.min_side, min(limits.max_side, near))


def _shape(width: int, height: int) -> str:
    return "square" if width == height else "portrait" if width < height else "landscape"
