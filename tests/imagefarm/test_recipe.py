"""Recipes and requests: canonical form, hashes, seeds, and refusals."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from imagefarm.catalogue import Catalogue
from imagefarm.errors import InvalidRequest, UnknownModel
from imagefarm.recipe import MAX_PROMPT_CHARS, MAX_SEED, JobRequest, Recipe

ASSET = "asset_01JD0000000000000000000000"


def resolve(catalogue: Catalogue, **fields: object) -> Recipe:
    return catalogue.resolve(JobRequest.model_validate({"prompt": "a red mug", "seed": 7, **fields}))[0]


def test_canonical_json_is_one_text_for_one_recipe(catalogue: Catalogue) -> None:
    recipe = resolve(catalogue, prompt="白色背景上的红色马克杯")
    text = recipe.canonical_json()
    shuffled = dict(reversed(json.loads(text).items()))
    assert Recipe.model_validate(shuffled).canonical_json() == text
    assert Recipe.model_validate_json(text).recipe_hash == recipe.recipe_hash
    assert "白色" in text
    assert " " not in text.replace("a red mug", "")


def test_every_field_that_decides_a_picture_changes_the_hash(catalogue: Catalogue) -> None:
    base = resolve(catalogue)
    others = [
        resolve(catalogue, prompt="a red mug."),
        resolve(catalogue, seed=8),
        resolve(catalogue, steps=7),
        resolve(catalogue, guidance=1.5),
        resolve(catalogue, negative_prompt="blur"),
        resolve(catalogue, upscale={"model": "lanczos", "scale": 2}),
    ]
    assert len({recipe.recipe_hash for recipe in [base, *others]}) == 7


def test_seeds_are_exact_to_64_bits(catalogue: Catalogue) -> None:
    recipe = resolve(catalogue, seed=MAX_SEED)
    assert json.loads(recipe.canonical_json())["seed"] == "18446744073709551615"
    assert resolve(catalogue, seed="18446744073709551615") == recipe
    assert recipe.seed_of(1) == 0
    assert resolve(catalogue, seed=2**53 + 1).seed == 2**53 + 1


def test_a_request_without_seed_gets_one(catalogue: Catalogue) -> None:
    first, _ = catalogue.resolve(JobRequest(prompt="x"))
    second, _ = catalogue.resolve(JobRequest(prompt="x"))
    assert first.seed != second.seed


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "  \n"}, "prompt"),
        ({"prompt": "a\x00b"}, "prompt"),
        ({"prompt": "a\ud800b"}, "prompt"),
        ({"prompt": "x" * (MAX_PROMPT_CHARS + 1)}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"seed": -1}, "seed"),
        ({"seed": MAX_SEED + 1}, "seed"),
        ({"seed": "٣"}, "seed"),
        ({"seed": "1e3"}, "seed"),
        ({"seed": True}, "seed"),
        ({"steps": True}, "steps"),
        ({"steps": 0}, "steps"),
        ({"count": False}, "count"),
        ({"width": 1024.5}, "width"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": float("inf")}, "guidance"),
        ({"colour": "red"}, "colour"),
        ({"labels": {"": "x"}}, "labels"),
        ({"labels": {"a": "\x00"}}, "labels"),
        ({"priority": "urgent"}, "priority"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        JobRequest.model_validate({"prompt": "x", **fields})
    assert {str(error["loc"][0]) for error in caught.value.errors()} == {field}


def test_a_whole_float_is_an_integer_as_json_schema_says(catalogue: Catalogue) -> None:
    assert resolve(catalogue, width=64.0).width == 64


def test_bounds_stay_in_the_json_schema() -> None:
    schema = JobRequest.model_json_schema()
    steps = schema["properties"]["steps"]["anyOf"][0]
    assert (steps["minimum"], steps["maximum"]) == (1, 200)


@pytest.mark.parametrize(
    ("fields", "field", "remedy"),
    [
        ({"model": "z-image-turbo", "width": 1000}, "width", "use 992"),
        ({"model": "z-image-turbo", "width": 4000}, "width", "use 2048"),
        ({"model": "z-image-turbo", "width": 2048, "height": 2048, "count": 17}, "count", "batch"),
        ({"width": 80, "height": 80}, "width", "64x64, 128x128"),
        ({"width": 128, "height": 64}, "width", "64x64, 128x128"),
        ({"width": 100}, "width", "use 128"),
        ({"steps": 60}, "steps", "use 8"),
        ({"sampler": "ddim"}, "sampler", "flow-euler"),
        ({"loras": [{"name": "shiny"}]}, "loras.0.name", "known"),
        ({"model": "sd-turbo", "init_image": ASSET}, "init_image", "leave it out"),
        ({"mask": ASSET}, "mask", "leave it out"),
        ({"model": "z-image-edit", "init_image": ASSET, "mask": ASSET}, "mask", "z-image-turbo, z-image, sdxl, sd15"),
        ({"strength": 0.5}, "strength", "leave it out"),
        ({"upscale": {"model": "magic"}}, "upscale.model", "lanczos"),
    ],
)
def test_what_a_model_cannot_do_names_field_and_remedy(
    catalogue: Catalogue, fields: dict[str, object], field: str, remedy: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolve(catalogue, **fields)
    assert caught.value.errors[0].field == field
    assert remedy in caught.value.errors[0].remedy


def test_an_unknown_model_lists_the_known_ones(catalogue: Catalogue) -> None:
    with pytest.raises(UnknownModel) as caught:
        resolve(catalogue, model="dall-e")
    assert "z-image-turbo" in caught.value.errors[0].remedy


def test_a_negative_prompt_the_model_ignores_is_a_warning(catalogue: Catalogue) -> None:
    _, warnings = catalogue.resolve(JobRequest(prompt="x", negative_prompt="blur"))
    assert "no negative prompt" in warnings[0]


def test_an_alias_finds_its_model(catalogue: Catalogue) -> None:
    assert resolve(catalogue, model="z_image_turbo_bf16.safetensors").model == "z-image-turbo"


def test_a_mask_opens_the_picture_wholly_where_nothing_else_is_said(catalogue: Catalogue) -> None:
    assert resolve(catalogue, init_image=ASSET).strength == 0.6
    masked = resolve(catalogue, init_image=ASSET, mask=ASSET)
    assert (masked.strength, masked.assets) == (1.0, {"init_image": ASSET, "mask": ASSET})
    assert resolve(catalogue, init_image=ASSET, mask=ASSET, strength=0.4).strength == 0.4
