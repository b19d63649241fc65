"""The catalogue file: what it must hold and how its errors read."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagefarm.catalogue import Catalogue
from imagefarm.errors import ConfigurationError
from imagefarm.recipe import JobRequest

ENTRY = """
[models.{name}]
title = "T"
source = "folder"
family = "{family}"
license = "x"
dtype = "{dtype}"
defaults = {{ width = 64, height = 64, steps = 8, guidance = 0.0, sampler = "flow-euler" }}
limits = {{ min_side = 64, max_side = 128, multiple = 16, max_steps = 50 }}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "models.toml"
    file.write_text(text, "utf-8")
    return file


def test_the_named_models_are_there(catalogue: Catalogue) -> None:
    assert {"demo", "z-image-turbo", "z-image", "z-image-edit", "sdxl", "sd15", "sd-turbo", "sd15-lcm"} <= set(catalogue.names())
    turbo = catalogue.get("z-image-turbo")
    assert (turbo.defaults.steps, turbo.defaults.guidance, turbo.dtype) == (8, 0.0, "bfloat16")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no [models.NAME]"),
        ("models = [", "models.toml"),
        (ENTRY.format(name="a", family="flux", dtype="auto"), "family"),
        (ENTRY.format(name="a", family="z-image", dtype="float16"), "black"),
        (ENTRY.format(name="'A b'", family="z-image", dtype="auto"), "A b"),
        ('default = "b"\n' + ENTRY.format(name="a", family="z-image", dtype="auto"), "default"),
    ],
)
def test_a_wrong_catalogue_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match="models.toml") as caught:
        Catalogue.read(write(tmp_path, text))
    assert words in caught.value.detail


def test_sources_are_relative_to_the_catalogue(tmp_path: Path) -> None:
    catalogue = Catalogue.read(write(tmp_path, ENTRY.format(name="a", family="z-image", dtype="auto")))
    assert catalogue.local_path("folder") == tmp_path / "folder"
    assert catalogue.local_path("owner/name") is None
    assert catalogue.local_path("./owner/name") == tmp_path / "owner" / "name"
    assert catalogue.local_path("lone.safetensors") == tmp_path / "lone.safetensors"


def test_compat_keys_group_what_one_forward_can_take(catalogue: Catalogue) -> None:
    def key(**fields: object) -> str:
        recipe, _ = catalogue.resolve(JobRequest.model_validate({"prompt": "x", **fields}))
        return catalogue.get(recipe.model).compat_key(recipe)

    turbo = {"model": "z-image-turbo"}
    assert key(**turbo, width=512, height=512, steps=4) == key(**turbo)
    sd = {"model": "sd15"}
    assert key(**sd, width=768) != key(**sd)
    assert key(**sd, guidance=1.0) != key(**sd)
    assert key(**sd, steps=5) == key(**sd)


def test_cost_grows_with_pixels_steps_and_count(catalogue: Catalogue) -> None:
    entry = catalogue.get("z-image-turbo")
    recipe, _ = catalogue.resolve(JobRequest(prompt="x", model="z-image-turbo", width=512, height=512))
    assert entry.predicted_cost_s(recipe, 4) == pytest.approx(entry.cost_s)
    assert entry.predicted_cost_s(recipe, 1, learnt=8.0) == pytest.approx(2.0)
