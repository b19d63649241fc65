"""The studio's form: the choices that a model allows, the entered fields, and their conversion to and from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imagefarm.catalogue import Catalogue
from imagefarm.model_entry import ModelEntry
from imagefarm.prompts.kinds import Kind, Language, kinds
from imagefarm.recipe import JobRequest

SQUARES = (512, 768, 1024)
SHAPES: tuple[tuple[str, float], ...] = (("portrait", 3 / 4), ("landscape", 4 / 3), ("tall", 9 / 16), ("wide", 16 / 9))
COUNTS = (1, 2, 4, 8, 16)
FIELDS = (
    "prompt",
    "negative_prompt",
    "kind",
    "model",
    "size",
    "width",
    "height",
    "steps",
    "guidance",
    "sampler",
    "count",
    "seed",
    "keep",
    "init_image",
    "init_image_as",
    "strength",
    "cut",
    "shadow",
    "scale",
    "upscale",
    "format",
    "quality",
)
PRODUCT = "product"
"""Value of `init_image_as` for an image whose subject stays unchanged to the pixel. Otherwise it is the image to start from."""
LORA = "lora:"
"""Prefix of the fields that hold the weight of a LoRA. An empty field means that the LoRA is not used."""
ENLARGED = 2
"""Largest factor between an image and its larger version."""


@dataclass(frozen=True, slots=True)
class Size:
    """A size in pixels to choose. `name` is its shape."""

    width: int
    height: int
    name: str

    @property
    def value(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KindChoice:
    """A kind of picture to choose, with the steps, guidance and negative prompt for the chosen model."""

    name: str
    title: str
    steps: int
    guidance: float
    negative: str


def sizes_of(entry: ModelEntry) -> tuple[Size, ...]:
    """The sizes to offer: the model's list if it has one, else squares and shapes of about the default's area."""
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


def larger_size(entry: ModelEntry, width: int, height: int) -> Size | None:
    """The next larger size of the same shape that the model allows; None without one."""
    limits = entry.limits
    if limits.sizes:
        found = [(w, h) for w, h in limits.sizes if w > width and abs(w * height - h * width) <= 0.02 * w * height]
        return Size(*min(found), _shape(*min(found))) if found else None
    scale = min(ENLARGED, limits.max_side / max(width, height), (limits.max_pixels / (width * height)) ** 0.5)
    larger = tuple(int(side * scale) // limits.multiple * limits.multiple for side in (width, height))
    if larger[0] < width * 1.2 or min(larger) < limits.min_side:
        return None
    return Size(larger[0], larger[1], _shape(*larger))


def counts_of(entry: ModelEntry) -> tuple[int, ...]:
    """The image counts to offer."""
    return tuple(count for count in COUNTS if count <= entry.limits.max_count)


def kinds_of(entry: ModelEntry, language: str) -> tuple[KindChoice, ...]:
    """The kinds of pictures in the reader's language, with the values for this model."""
    chinese: Language = "zh" if language == "zh" else "en"
    return tuple(
        KindChoice(
            name=kind.name,
            title=kind.title_zh if language == "zh" else kind.title,
            steps=kind.steps_for(entry),
            guidance=kind.guidance_for(entry),
            negative=kind.negative_in(chinese),
        )
        for kind in kinds().values()
    )


def loras_of(catalogue: Catalogue, entry: ModelEntry) -> tuple[str, ...]:
    """The names of the LoRAs that the model supports."""
    if "loras" not in entry.features:
        return ()
    return tuple(name for name, lora in catalogue.loras.items() if entry.family in lora.families)


def typed(given: Mapping[str, str]) -> dict[str, str]:
    """The entered fields by name. Missing fields are empty."""
    fields = {name: given.get(name, "").strip() for name in FIELDS}
    return fields | {name: value.strip() for name, value in given.items() if name.startswith(LORA) and value.strip()}


def from_recipe(recipe: dict[str, Any], count: int) -> dict[str, str]:
    """The form's fields that reproduce this recipe."""

    def text(name: str) -> str:
        return str(recipe.get(name) or "")

    strength, upscale, subject = (recipe.get(name) for name in ("strength", "upscale", "subject"))
    fields = dict.fromkeys(FIELDS, "") | {name: text(name) for name in ("prompt", "negative_prompt", "model", "sampler")}
    return (
        fields
        | {
            "size": f"{recipe['width']}x{recipe['height']}",
            "steps": str(recipe["steps"]),
            "guidance": f"{float(recipe['guidance']):g}",
            "count": str(count),
            "seed": str(recipe["seed"]),
            "init_image": text("init_image"),
            "strength": "" if strength is None else f"{float(strength):g}",
            "upscale": f"{upscale['model']}:{upscale['scale']}" if upscale else "",
            "format": text("format"),
            "quality": text("quality"),
        }
        | (
            {
                "init_image": subject["image"],
                "init_image_as": PRODUCT,
                "cut": subject["mask"],
                "shadow": f"{float(subject['shadow']):g}",
                "scale": f"{float(subject['place']['scale']):g}" if subject["place"]["scale"] else "",
            }
            if subject
            else {}
        )
        | {LORA + lora["name"]: f"{float(lora.get('weight', 1)):g}" for lora in recipe.get("loras") or ()}
    )


def request_of(fields: Mapping[str, str], entry: ModelEntry) -> JobRequest:
    """Convert the form to a request. Raises ValidationError for invalid fields; the catalogue checks the rest later.

    The kind of picture gives steps and guidance if their fields are empty.
    """
    width, _, height = fields["size"].partition("x")
    kind: Kind | None = kinds().get(fields["kind"])
    upscaler, _, scale = fields["upscale"].rpartition(":")
    asked: dict[str, Any] = {
        "prompt": fields["prompt"],
        "model": entry.name,
        "width": fields["width"] or width or None,
        "height": fields["height"] or height or None,
        "steps": fields["steps"] or (kind.steps_for(entry) if kind else None),
        "guidance": fields["guidance"] or (kind.guidance_for(entry) if kind else None),
        "sampler": fields["sampler"] or None,
        "count": fields["count"] or 1,
        "seed": fields["seed"] or None,
        "loras": [
            {"name": name.removeprefix(LORA), "weight": weight} for name, weight in fields.items() if name.startswith(LORA)
        ],
        "upscale": {"model": upscaler, "scale": scale} if scale else None,
        "preview": True,
        "format": fields["format"] or None,
        "quality": (fields["quality"] or None) if fields["format"] in {"jpeg", "webp"} else None,
    }
    if fields["init_image"] and fields["init_image_as"] == PRODUCT:
        asked["subject"] = {
            "image": fields["init_image"],
            "mask": fields["cut"] or "alpha",
            "shadow": fields["shadow"] or 0,
            "place": {"scale": fields["scale"] or None},
        }
    elif fields["init_image"]:
        asked |= {"init_image": fields["init_image"], "strength": fields["strength"] or None}
    if "negative_prompt" in entry.features:
        asked["negative_prompt"] = fields["negative_prompt"]
    return JobRequest.model_validate({name: value for name, value in asked.items() if value is not None})


def _fit(side: float, entry: ModelEntry) -> int:
    limits = entry.limits
    near = round(side / limits.multiple) * limits.multiple
    return max(limits.min_side, min(limits.max_side, near))


def _shape(width: int, height: int) -> str:
    return "square" if width == height else "portrait" if width < height else "landscape"
