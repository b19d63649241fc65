"""Models are loaded from complete, known, unpickled files only; anything else is one clear line."""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from imagefarm.catalogue import Catalogue
from imagefarm.errors import RenderError
from imagefarm.model_entry import ModelEntry
from imagefarm.settings import PROJECT_ROOT
from tests.worker.model_jobs import SmallModels, pictures
from worker.engine.engine import StepEngine
from worker.families import family_class
from worker.models.device import pick_dtype
from worker.models.loading import LoadedPipeline, load_pipeline
from worker.weights.digests import WeightDigests

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(models: SmallModels, tmp_path: Path) -> Path:
    """A copy of the Stable Diffusion folder that a test may spoil."""
    shutil.copytree(models.folder / "sd15", tmp_path / "sd15")
    return tmp_path / "sd15"


def load(folder: Path, model: str = "tiny-sd15", **changes: Any) -> LoadedPipeline:
    """Load a model of the tiny catalogue with some fields changed; sources are relative to `folder`."""
    from tests.worker.conftest import CATALOGUE

    fields = tomllib.loads(CATALOGUE)["models"][model]
    entry = ModelEntry(name=model, **{**fields, **changes})
    return load_pipeline(entry, Catalogue([entry], {}, folder, model), device="cpu", digests=WeightDigests())


def refused(folder: Path, model: str = "tiny-sd15", **changes: Any) -> str:
    with pytest.raises(RenderError) as caught:
        load(folder, model, **changes)
    assert caught.value.code == "model_invalid"
    assert "\n" not in caught.value.detail
    return caught.value.detail


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    detail = refused(tmp_path, source="./nowhere")
    assert str(tmp_path / "nowhere") in detail
    assert "does not exist" in detail


def test_a_hub_id_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    detail = refused(tmp_path, source="nobody/no-such-model")
    assert "nobody/no-such-model is not on this machine" in detail
    assert detail.endswith("run `imagefarm models pull tiny-sd15`")


def test_a_folder_without_an_index_is_no_model(copy: Path) -> None:
    (copy / "model_index.json").unlink()
    assert "model_index.json" in refused(copy.parent)


def test_a_truncated_file_is_found_before_it_is_loaded(copy: Path) -> None:
    whole = (copy / UNET).read_bytes()
    (copy / UNET).write_bytes(whole[:-8])
    assert f"it should be {len(whole)} bytes long and is {len(whole) - 8}" in refused(copy.parent)


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95pickle", b"\xff" * 64, b"\x02\x00\x00\x00\x00\x00\x00\x00[]"])
def test_a_file_that_is_no_safetensors(copy: Path, content: bytes) -> None:
    (copy / UNET).write_bytes(content)
    assert UNET in refused(copy.parent)


def test_missing_parameters_are_not_made_up(copy: Path) -> None:
    tensors = load_file(copy / UNET)
    del tensors["conv_out.weight"]
    save_file(tensors, copy / UNET)
    assert "unet" in refused(copy.parent)


def test_pickled_weights_are_refused(copy: Path) -> None:
    tensors = load_file(copy / UNET)
    (copy / UNET).unlink()
    torch.save(tensors, copy / "unet" / "diffusion_pytorch_model.bin")
    assert "diffusion_pytorch_model.bin: pickled weights are never loaded" in refused(copy.parent)


def test_a_lone_pickle_is_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "model.ckpt")
    assert "not a .safetensors file" in refused(tmp_path, source="./model.ckpt")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unet", ["my_unet", "MyUNet"]),
        ("text_encoder", ["transformers", "LlamaForCausalLM"]),
        ("scheduler", ["diffusers", "DiffusionPipeline"]),
    ],
)
def test_classes_outside_the_list_are_refused(copy: Path, name: str, value: list[str]) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {name: value}))
    detail = refused(copy.parent)
    assert f"{value[0]}.{value[1]} for {name}" in detail


def test_a_pipeline_of_another_family_is_refused(models: SmallModels) -> None:
    detail = refused(models.folder, source="sdxl")
    assert "StableDiffusionXLPipeline; family sd15 loads StableDiffusionPipeline" in detail


def test_pins_are_enforced(models: SmallModels) -> None:
    right = hashlib.sha256((models.folder / "sd15" / UNET).read_bytes()).hexdigest()
    assert load(models.folder, pins={UNET: right}).facts["files"][UNET] == right
    assert f"{UNET} has SHA-256 {right}, the catalogue pins {'0' * 64}" in refused(models.folder, pins={UNET: "0" * 64})
    assert "unet/other.safetensors is missing" in refused(models.folder, pins={"unet/other.safetensors": right})


def test_a_family_without_a_file_says_what_it_lacks() -> None:
    with pytest.raises(RenderError, match="no file in worker/families"):
        family_class("flux")


def test_the_optional_checker_is_not_loaded(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (copy / "model_index.json").write_text(json.dumps(index))
    assert load(copy.parent).family.pipe.safety_checker is None


def test_a_variant_is_taken_where_there_is_one(copy: Path) -> None:
    for file in list(copy.glob("*/*.safetensors")):
        half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in load_file(file).items()}
        save_file(half, file.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
    loaded = load(copy.parent, variant="fp16")
    assert loaded.facts["variant"] == "fp16"
    assert all(".fp16." in name for name in loaded.facts["files"])
    assert loaded.dtype is torch.float32  # the CPU computes in float32 whatever is stored
    assert load(copy.parent, variant="no-such").facts["variant"] == ""


def test_a_lone_transformer_with_the_configuration_of_a_folder(models: SmallModels, tmp_path: Path) -> None:
    lone = tmp_path / "z_image_turbo.safetensors"
    shutil.copy(models.folder / "z-image" / "transformer" / "diffusion_pytorch_model.safetensors", lone)
    loaded = load(models.folder, "tiny-z-image", source=str(lone), config="z-image")
    job = models.job("tiny-z-image")
    (expected,) = pictures(models.engine("tiny-z-image"), job)
    (made,) = pictures(StepEngine(loaded, max_images=1), job)
    assert np.array_equal(made, expected)
    assert lone.name in loaded.facts["files"]
    assert "name the folder of its configuration" in refused(models.folder, "tiny-z-image", source=str(lone))


def test_facts_say_what_was_loaded(models: SmallModels) -> None:
    facts = models.pipeline("tiny-z-image").facts
    assert facts["pipeline"] == "ZImagePipeline"
    assert facts["components"]["transformer"]["class"] == "ZImageTransformer2DModel"
    assert facts["components"]["transformer"]["parameters"] > 400_000
    assert facts["dtype"] == "float32"
    assert facts["versions"]["torch"].startswith("2.")
    assert len(models.pipeline("tiny-z-image").digest) == 64
    assert models.pipeline("tiny-z-image").encoder_digest != models.pipeline("tiny-sd15").encoder_digest


def test_files_are_hashed_once(models: SmallModels, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"one")
    digests = WeightDigests(tmp_path / "run" / "digests.json")
    assert digests.of(weights) == digests.of(weights) == hashlib.sha256(b"one").hexdigest()
    assert digests.hashed == 1
    again = WeightDigests(tmp_path / "run" / "digests.json")
    assert again.of(weights) == hashlib.sha256(b"one").hexdigest()
    assert again.hashed == 0
    weights.write_bytes(b"changed")
    assert again.of(weights) == hashlib.sha256(b"changed").hexdigest()
    (tmp_path / "run" / "digests.json").write_text("{half")
    assert WeightDigests(tmp_path / "run" / "digests.json").of(weights) == hashlib.sha256(b"changed").hexdigest()


def test_every_catalogued_family_is_known(models: SmallModels) -> None:
    for entry in Catalogue.read(PROJECT_ROOT / "models.toml").entries.values():
        assert family_class(entry.family).half in (torch.bfloat16, torch.float16)


@pytest.mark.parametrize(
    ("wanted", "device", "expected"),
    [
        ("auto", "cpu", torch.float32),
        ("bfloat16", "cpu", torch.float32),
        ("float16", "mps", torch.float16),
        ("float32", "mps", torch.float32),
    ],
)
def test_dtypes(wanted: str, device: str, expected: torch.dtype) -> None:
    assert pick_dtype(wanted, torch.device(device), torch.bfloat16) is expected
