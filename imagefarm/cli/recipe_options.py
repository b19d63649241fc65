"""Option values of the command line as recipe fields: `lanczos:2`, `ring:0.8`, `0.5,0.6,1`; and images, which are uploaded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import typer

from imagefarm.client import Client
from imagefarm.recipe import Lora, Upscale

ASSET = re.compile(r"asset_[0-9A-HJKMNP-TV-Z]{26}")
ADDRESS = ("http://", "https://")
MASKS = ("alpha", "white")

Picture: TypeAlias = str | Path
"""An image of a recipe: a URL, the id of an asset, or a local file, which is uploaded as an asset."""


def finite(value: float | None) -> float | None:
    """A finite number. float() also accepts `nan` and `inf`, which JSON cannot hold."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def upscale_of(text: str | None) -> dict[str, Any] | None:
    """MODEL or MODEL:SCALE."""
    if text is None:
        return None
    model, colon, scale = text.rpartition(":")
    if not colon:
        return {"model": text, "scale": Upscale().scale}
    if not model or not re.fullmatch("[0-9]{1,3}", scale):
        raise typer.BadParameter(f"{text!r} is not MODEL or MODEL:SCALE; write it like lanczos:2", param_hint="--upscale")
    return {"model": model, "scale": int(scale)}


def loras_of(texts: list[str]) -> list[dict[str, Any]] | None:
    """NAME or NAME:WEIGHT each."""
    return [_lora(text) for text in texts] or None


def _lora(text: str) -> dict[str, Any]:
    name, colon, weight = text.rpartition(":")
    if not colon:
        return {"name": text, "weight": Lora.model_fields["weight"].default}
    number = _number(weight)
    if not name or number is None:
        raise typer.BadParameter(f"{text!r} is not NAME or NAME:WEIGHT; write it like gold:0.8", param_hint="--lora")
    return {"name": name, "weight": number}


def placement_of(text: str | None) -> dict[str, float] | None:
    """X,Y or X,Y,SCALE."""
    if text is None:
        return None
    numbers = [_number(part) for part in text.split(",")]
    if len(numbers) not in {2, 3} or None in numbers:
        raise typer.BadParameter(f"{text!r} is not X,Y or X,Y,SCALE; write it like 0.5,0.6", param_hint="--subject-place")
    return {name: number for name, number in zip(("x", "y", "scale"), numbers, strict=False) if number is not None}


def picture_of(text: str | None, option: str, *, words: tuple[str, ...] = ()) -> Picture | None:
    """The image of an option. A missing file is reported now, before anything is uploaded."""
    if text is None or text in words or text.startswith(ADDRESS) or ASSET.fullmatch(text):
        return text
    path = Path(text)
    try:
        found = path.is_file()
    except OSError:  # for example a name that is too long for a file
        found = False
    if not found:
        also = "".join(f"{word}, " for word in words)
        raise typer.BadParameter(
            f"{text[:200]!r} is not a file here; name {also}a file, a URL or an asset's id", param_hint=option
        )
    return path


def subject_of(image: Picture | None, *, mask: Picture | None, **more: Any) -> dict[str, Any] | None:
    """A subject from its options. Raises an error for options of a subject without a photo."""
    given = {name: value for name, value in ({"mask": mask} | more).items() if value is not None}
    if image is not None:
        return {"image": image} | given
    if given:
        option = {"mask": "--subject-mask", "place": "--subject-place"}.get(first := next(iter(given)), f"--{first}")
        raise typer.BadParameter("belongs to a subject; name its photo with --subject", param_hint=option)
    return None


def sent(farm: Client, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with each file replaced by the id of its uploaded asset. A file that is named twice is uploaded once."""
    assets: dict[Path, str] = {}
    for path in _files(fields):
        if path not in assets:
            try:
                assets[path] = farm.assets.upload(path)
            except OSError as error:
                raise typer.BadParameter(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    return _named(fields, assets)


def _files(fields: Mapping[str, Any]) -> Iterator[Path]:
    for value in fields.values():
        if isinstance(value, Path):
            yield value
        elif isinstance(value, Mapping):
            yield from _files(value)


def _named(fields: Mapping[str, Any], assets: Mapping[Path, str]) -> dict[str, Any]:
    return {
        name: assets[value] if isinstance(value, Path) else _named(value, assets) if isinstance(value, Mapping) else value
        for name, value in fields.items()
    }


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
