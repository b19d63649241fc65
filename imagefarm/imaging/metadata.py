"""Metadata of image files: A1111's `parameters` text, which other tools read, and the farm's own record."""

from __future__ import annotations

import io
import json
import re
from typing import Any

from PIL import Image, UnidentifiedImageError

from imagefarm.errors import RequestError
from imagefarm.imaging.labels import FARM, PARAMETERS, texts_of
from imagefarm.recipe import Recipe
from imagefarm.version import __version__

MAX_PIXELS = 64 * 1024 * 1024
"""Largest number of pixels that is decoded. A small file may claim a huge image."""
NEGATIVE = "Negative prompt: "
PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""One `Key: value` of the last line, as A1111 reads it."""
MAX_SETTINGS_CHARS = 4000
"""Characters. A longer last line is prose, and the pattern's time on a hostile line grows with the square of its length."""


def parameters_text(recipe: Recipe, seed: int, model_digest: str) -> str:
    """A1111's text: prompt, negative prompt, then one line of settings.

    For example: `a red mug`, new line, `Steps: 8, Sampler: flow-euler, CFG scale: 0, Seed: 42, Size: 64x64, Model hash:
    0123456789, Model: demo, Version: imagefarm 0.1.0`.
    """
    settings: dict[str, Any] = {
        "Steps": recipe.steps,
        "Sampler": recipe.sampler,
        "CFG scale": f"{recipe.guidance:g}",
        "Seed": seed,
        "Size": f"{recipe.width}x{recipe.height}",
        "Model hash": model_digest[:10],
        "Model": recipe.model,
        "Denoising strength": None if recipe.strength is None else f"{recipe.strength:g}",
        "Lora": "; ".join(f"{lora.name}:{lora.weight:g}" for lora in recipe.loras),
        "Hires upscale": recipe.upscale.scale if recipe.upscale else None,
        "Hires upscaler": recipe.upscale.model if recipe.upscale else None,
        "Version": f"imagefarm {__version__}",
    }
    lines = [recipe.prompt]
    if recipe.negative_prompt:
        lines.append(NEGATIVE + recipe.negative_prompt)
    lines.append(", ".join(f"{key}: {_quoted(str(value))}" for key, value in settings.items() if value not in (None, "")))
    return "\n".join(lines)


def farm_record(
    job_id: str, index: int, recipe: Recipe, seed: int, model_digest: str, *, recipe_hash: str = ""
) -> dict[str, Any]:
    """The farm's own record, which leads from the file back to its job. Pass the recipe's hash if it is known, to save time."""
    return {
        "job": job_id,
        "index": index,
        "seed": str(seed),
        "model": recipe.model,
        "model_digest": model_digest,
        "recipe_hash": recipe_hash or recipe.recipe_hash,
        "version": __version__,
    }


def text_chunks(
    job_id: str, index: int, recipe: Recipe, seed: int, model_digest: str, *, recipe_hash: str = ""
) -> dict[str, str]:
    """The texts of an image file by keyword; in PNG they are its text chunks."""
    record = farm_record(job_id, index, recipe, seed, model_digest, recipe_hash=recipe_hash)
    return {
        PARAMETERS: parameters_text(recipe, seed, model_digest),
        FARM: json.dumps(record, ensure_ascii=False, separators=(",", ":")),
    }


def parse_parameters(text: str) -> dict[str, str]:
    """Parse A1111's text: `Prompt`, `Negative prompt` and every setting by name. Unknown settings are kept."""
    *lines, last = text.strip().split("\n")
    pairs = PAIR.findall(last) if len(last) <= MAX_SETTINGS_CHARS else []
    if len(pairs) < 3:  # A1111's own rule: fewer is prose, not settings
        lines, pairs = [*lines, last], []
    body = "\n".join(lines)
    prompt, separator, negative = body.partition("\n" + NEGATIVE)
    if not separator and body.startswith(NEGATIVE):
        prompt, negative = "", body.removeprefix(NEGATIVE)
    return {"Prompt": prompt, "Negative prompt": negative} | {key: _unquoted(value) for key, value in pairs}


def read_metadata(data: bytes) -> dict[str, Any]:
    """Read the metadata of an image file, for lookup.

    Returns `format`, `width`, `height`, and where the file has them `parameters` (the text), `settings` (the parsed text) and
    `imagefarm` (the farm's record). Anyone can write such metadata, so check the job before believing it. Raises RequestError for
    a file that is not an image, is broken or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            found: dict[str, Any] = {"format": (image.format or "").lower(), "width": image.width, "height": image.height}
            if image.width * image.height > MAX_PIXELS:
                raise RequestError(f"the picture has {image.width}x{image.height} pixels; at most {MAX_PIXELS} are allowed")
            image.load()  # text chunks may follow the image data
            texts = texts_of(image.info, image.getexif())
    except UnidentifiedImageError:  # its text holds the address of a Python object
        raise RequestError("the file is not a picture; send a PNG, JPEG or WebP file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RequestError(f"the file is not a picture that can be read: {error}") from None
    if PARAMETERS in texts:
        found[PARAMETERS] = texts[PARAMETERS]
        found["settings"] = parse_parameters(texts[PARAMETERS])
    if FARM in texts:
        record = _json_object(texts[FARM])
        if record is not None:
            found[FARM] = record
    return found


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if set(value) & set(',\n:"') else value


def _unquoted(value: str) -> str:
    if value.startswith('"') and value.endswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
