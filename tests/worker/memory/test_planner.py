"""The planner's answer for each card, from exact weights: which tier, how many images, and that more memory never hurts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagefarm.catalogue import Catalogue
from imagefarm.errors import ConfigurationError, RenderError
from imagefarm.settings import PROJECT_ROOT
from tests.worker.model_jobs import SmallModels
from worker.memory.parameter_counts import PARAMETERS
from worker.memory.plan import main
from worker.memory.planner import ACTIVATIONS, GIB, Tier, Weights, best, plan, weight_bytes
from worker.memory.sizes import model_size, shapes_of
from worker.weights.headers import read_header


@pytest.fixture(scope="module")
def project() -> Catalogue:
    return Catalogue.read(PROJECT_ROOT / "models.toml")


@pytest.mark.parametrize(
    ("model", "vram", "tier"),
    [
        ("z-image-turbo", 48, Tier.RESIDENT),
        ("z-image-turbo", 24, Tier.RESIDENT),
        ("z-image-turbo", 16, Tier.ENCODER_SWAPPED),
        ("z-image-turbo", 12, Tier.INT8),
        ("z-image-turbo", 8, Tier.INT8_ENCODER_SWAPPED),
        ("z-image-turbo", 6, Tier.NF4_ENCODER_SWAPPED),
        ("z-image-turbo", 4, Tier.GROUP_OFFLOAD),
        ("z-image-turbo", 2, Tier.SEQUENTIAL),
        ("z-image-turbo", 0.5, None),
        ("sdxl", 12, Tier.RESIDENT),
        ("sd15", 6, Tier.RESIDENT),
        ("sd-turbo", 4, Tier.RESIDENT),
        ("demo", 1, Tier.RESIDENT),
    ],
)
def test_the_tier_for_a_card(project: Catalogue, model: str, vram: float, tier: Tier | None) -> None:
    entry = project.get(model)
    chosen = best(plan(model_size(entry, project)[0], int(vram * GIB), shapes_of(entry)))
    assert (chosen.tier if chosen else None) == tier


def test_what_cannot_be_had_is_skipped(project: Catalogue) -> None:
    entry = project.get("z-image-turbo")
    size, _ = model_size(entry, project)
    unavailable = {tier: "no" for tier in Tier if tier.weights in (Weights.INT8, Weights.NF4)}
    for vram, tier in ((12, Tier.FP8), (8, Tier.FP8_ENCODER_SWAPPED), (6, Tier.GROUP_OFFLOAD)):
        chosen = best(plan(size, vram * GIB, shapes_of(entry), unavailable=unavailable))
        assert chosen is not None
        assert chosen.tier is tier


def test_float32_takes_twice_the_memory(project: Catalogue) -> None:
    entry = project.get("z-image-turbo")
    for tier in (Tier.RESIDENT, Tier.ENCODER_SWAPPED, Tier.GROUP_OFFLOAD):
        narrow, wide = (weight_bytes(model_size(entry, project, width=width)[0], tier) for width in (2, 4))
        assert wide == 2 * narrow


def test_weights_of_z_image_are_the_exact_ones(project: Catalogue) -> None:
    size, _ = model_size(project.get("z-image-turbo"), project)
    gib = {tier: round(weight_bytes(size, tier) / GIB, 1) for tier in Tier}
    assert gib[Tier.RESIDENT] == 19.1
    assert gib[Tier.ENCODER_SWAPPED] == 11.6
    assert gib[Tier.INT8] == 10.0
    assert gib[Tier.INT8_ENCODER_SWAPPED] == 5.9


@pytest.mark.parametrize("model", ["z-image-turbo", "z-image", "sdxl", "sd15", "sd-turbo"])
def test_more_memory_never_holds_fewer_images(project: Catalogue, model: str) -> None:
    entry = project.get(model)
    size, _ = model_size(entry, project)
    before = [0] * len(Tier)
    for vram in range(1, 49):
        plans = plan(size, vram * GIB, shapes_of(entry))
        now = [candidate.fits[0].images for candidate in plans]
        assert all(later >= earlier for earlier, later in zip(before, now, strict=True))
        before = now
    assert before[0] > 0


def test_larger_pictures_never_hold_more_images(project: Catalogue) -> None:
    entry = project.get("z-image-turbo")
    shapes = sorted(shapes_of(entry), key=lambda shape: shape[0] * shape[1])
    for candidate in plan(model_size(entry, project)[0], 16 * GIB, shapes):
        images = [fit.images for fit in candidate.fits]
        assert images == sorted(images, reverse=True)


def test_sizes_come_from_the_files_where_they_are(models: SmallModels) -> None:
    size, origin = model_size(models.catalogue.get("tiny-sdxl"), models.catalogue)
    pipe = models.pipeline("tiny-sdxl").family.pipe
    assert size.denoiser == sum(parameter.numel() for parameter in pipe.unet.parameters())
    assert size.vae == sum(parameter.numel() for parameter in pipe.vae.parameters())
    assert str(models.folder / "sdxl") in origin


def test_a_model_of_unknown_size_says_so(project: Catalogue) -> None:
    with pytest.raises(ConfigurationError, match="nor is its size known"):
        model_size(project.get("z-image-edit"), project)


def test_every_published_count_belongs_to_a_catalogued_model(project: Catalogue) -> None:
    assert set(PARAMETERS) <= {entry.source for entry in project.entries.values()}
    assert {entry.family for entry in project.entries.values()} == set(ACTIVATIONS)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    models_file = ["--models-file", str(PROJECT_ROOT / "models.toml")]
    assert main(["z-image-turbo", "--vram", "12", "--json", *models_file]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["tier"] == "int8"
    assert [tier["tier"] for tier in data["tiers"]] == [str(tier) for tier in Tier]
    assert main(["Z-Image-Turbo", "--vram", "24", *models_file]) == 0
    assert "take      resident: 19.1 GiB" in capsys.readouterr().out
    assert main(["z-image-turbo", "--vram", "0.5", *models_file]) == 1
    assert "does not fit in any way" in capsys.readouterr().out
    assert main(["nobody", "--vram", "12", *models_file]) == 2
    assert "no model is called 'nobody'" in capsys.readouterr().err
    assert main(["demo", "--vram", "12", "--models-file", "/nowhere/models.toml"]) == 3


def test_a_header_is_read_without_the_weights(models: SmallModels, tmp_path: Path) -> None:
    file = models.folder / "sd15" / "vae" / "diffusion_pytorch_model.safetensors"
    header = read_header(file)
    assert header.parameters == sum(parameter.numel() for parameter in models.pipeline("tiny-sd15").family.vae.parameters())
    assert header.dtypes == {"F32"}
    with pytest.raises(RenderError, match="No such file"):
        read_header(tmp_path / "none.safetensors")
