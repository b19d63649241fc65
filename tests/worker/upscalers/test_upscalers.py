"""Upscalers: small random networks of each architecture, from safetensors; tiles without seams, neighbours without waits."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from imagefarm.catalogue import Catalogue
from imagefarm.errors import ConfigurationError, InvalidRequest, RenderError
from imagefarm.model_entry import UpscalerEntry
from imagefarm.recipe import JobRequest
from tests.worker.model_jobs import SmallModels, claimed
from worker.engine.engine import StepEngine
from worker.engine.results import FailedJob, RenderedJob
from worker.inputs.input_images import NOTHING
from worker.models.loading import DIGESTS, LOADING
from worker.output.compositing import composite
from worker.upscalers.nets import Upscalers
from worker.upscalers.spandrel_import import import_spandrel
from worker.upscalers.tiles import TiledUpscale, tiles

CPU = torch.device("cpu")
PHOTO = np.random.default_rng(3).integers(0, 256, (50, 44, 3), dtype=np.uint8)


def make_net(architecture: str) -> torch.nn.Module:
    import_spandrel()
    import importlib

    module = importlib.import_module(f"spandrel.architectures.{architecture}")
    torch.manual_seed(2)
    build: dict[str, Callable[[], torch.nn.Module]] = {
        "ESRGAN": lambda: module.ESRGAN(num_filters=16, num_blocks=1, scale=4),
        "Compact": lambda: module.Compact(num_feat=16, num_conv=2, upscale=2),
        "SPAN": lambda: module.SPAN(num_in_ch=3, num_out_ch=3, feature_channels=48, upscale=4),
        "SwinIR": lambda: module.SwinIR(
            embed_dim=60, depths=[2], num_heads=[6], window_size=8, mlp_ratio=2, upscale=2, upsampler="pixelshuffledirect"
        ),
    }
    return build[architecture]().eval()


SCALES = {"ESRGAN": 4, "Compact": 2, "SPAN": 4, "SwinIR": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("upscalers")
    for architecture in SCALES:
        state = {name: tensor.contiguous().clone() for name, tensor in make_net(architecture).state_dict().items()}
        save_file(state, folder / f"{architecture}.safetensors")
    return folder


@pytest.fixture(scope="module")
def catalogue(models: SmallModels, folder: Path) -> Catalogue:
    entries = {name: UpscalerEntry(source=str(folder / f"{name}.safetensors"), scale=scale) for name, scale in SCALES.items()}
    entries["wrong-scale"] = UpscalerEntry(source=str(folder / "Compact.safetensors"), scale=4)
    entries["pickled"] = UpscalerEntry(source=str(folder / "net.pth"), scale=4)
    entries["a-vae"] = UpscalerEntry(source=str(models.folder / "sd15" / "vae" / "diffusion_pytorch_model.safetensors"), scale=2)
    entries["other-file"] = UpscalerEntry(source=str(folder / "SPAN.safetensors"), scale=4, sha256="0" * 64)
    old = models.catalogue
    return Catalogue(list(old.entries.values()), old.loras, old.folder, old.default, entries)


@pytest.fixture(scope="module")
def upscalers(catalogue: Catalogue) -> Upscalers:
    return Upscalers(catalogue, CPU, DIGESTS, LOADING)


def upscaled(net: Any, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    upscaling = TiledUpscale(pixels, net)
    while not upscaling.advance(0):
        pass
    return upscaling.result


@pytest.mark.parametrize("architecture", list(SCALES))
def test_a_net_gives_what_it_gives(upscalers: Upscalers, architecture: str) -> None:
    net = upscalers.get(architecture)
    assert net.facts["architecture"] == architecture
    made = upscaled(net, PHOTO)
    with torch.inference_mode():
        unit = torch.from_numpy(PHOTO).permute(2, 0, 1)[None].float() / 255
        expected = (net.model(unit)[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert made.shape == (50 * net.scale, 44 * net.scale, 3)
    assert np.array_equal(made, expected)
    assert made.std() > 1


@pytest.mark.parametrize(
    ("architecture", "width", "side", "overlap"),
    [("ESRGAN", 70, 60, 16), ("Compact", 70, 60, 16), ("SPAN", 70, 60, 16), ("SwinIR", 190, 152, 48)],
)
def test_tiles_have_no_seams(upscalers: Upscalers, architecture: str, width: int, side: int, overlap: int) -> None:
    net = upscalers.get(architecture)
    assert overlap == net.overlap
    photo = np.random.default_rng(4).integers(0, 256, (90, width, 3), dtype=np.uint8)
    whole = upscaled(net, photo)
    upscaling = TiledUpscale(photo, net)
    upscaling._tiles = list(tiles(90, width, side, overlap))
    steps = 0
    while not upscaling.advance(0):
        steps += 1
    assert steps >= 3
    assert np.abs(upscaling.result.astype(int) - whole).max() <= 1


def test_tiles_cover_every_pixel_once() -> None:
    for height, width, side, overlap in ((150, 130, 64, 16), (64, 64, 64, 16), (33, 500, 32, 8), (1, 1, 32, 8)):
        seen = np.zeros((height, width), int)
        for rows, columns, own_rows, own_columns in tiles(height, width, side, overlap):
            assert rows.stop - rows.start <= side
            assert columns.stop - columns.start <= side
            seen[
                rows.start + own_rows.start : rows.start + own_rows.stop,
                columns.start + own_columns.start : columns.start + own_columns.stop,
            ] += 1
        assert (seen == 1).all()


def test_out_of_memory_makes_the_tiles_smaller(upscalers: Upscalers, monkeypatch: pytest.MonkeyPatch) -> None:
    net = upscalers.get("Compact")
    expected = upscaled(net, PHOTO)
    real, most = net.model.__call__, 40

    class Tight:
        def __call__(self, unit: torch.Tensor) -> torch.Tensor:
            if max(unit.shape[-2:]) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(unit)

    made = TiledUpscale(PHOTO, replace(net, model=Tight()))
    while not made.advance(0):
        pass
    assert made.facts["tile"] == 32
    assert np.abs(made.result.astype(int) - expected).max() <= 1
    most = 8
    with pytest.raises(RenderError, match="use lanczos") as caught:
        upscaled(replace(net, model=Tight()), PHOTO)
    assert caught.value.code == "oom"


class TestInTheEngine:
    """As a step of a recipe."""

    @pytest.fixture
    def engine(self, models: SmallModels, upscalers: Upscalers) -> StepEngine:
        pipeline = models.fresh("tiny-z-image")
        pipeline.upscalers = upscalers
        return StepEngine(pipeline, max_images=4)

    def test_the_picture_is_enlarged_and_brought_to_size(self, engine: StepEngine, catalogue: Catalogue) -> None:
        plain = claimed(catalogue, model="tiny-z-image")
        large = claimed(catalogue, model="tiny-z-image", upscale={"model": "SPAN", "scale": 4})
        half = claimed(catalogue, model="tiny-z-image", upscale={"model": "SPAN", "scale": 2})
        made = {}
        for job in (plain, large, half):
            engine.add(job)
            while engine.jobs:
                made |= {item.job.id: item for item in engine.step().rendered}
        image = made[large.id].images[0]
        net = engine.pipeline.upscalers.get("SPAN")
        assert np.array_equal(image.pixels, upscaled(net, made[plain.id].images[0].pixels))
        assert image.facts["upscaler"] | {"name": "SPAN", "architecture": "SPAN", "scale": 4} == image.facts["upscaler"]
        assert composite(image.pixels, large.recipe, NOTHING).shape == (256, 256, 3)
        assert composite(made[half.id].images[0].pixels, half.recipe, NOTHING).shape == (128, 128, 3)
        assert made[large.id].gpu_s > made[plain.id].gpu_s * 0.5

    def test_neighbours_go_on_between_the_tiles(
        self, engine: StepEngine, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("worker.engine.engine.UPSCALE_BUDGET_S", 0.0)
        monkeypatch.setattr("worker.upscalers.nets.SIDE", 16)
        net = engine.pipeline.upscalers.get("ESRGAN")
        engine.pipeline.upscalers._nets["ESRGAN"] = replace(net, side=40, overlap=8)
        large = claimed(catalogue, model="tiny-z-image", steps=1, upscale={"model": "ESRGAN", "scale": 4}, count=2)
        neighbour = claimed(catalogue, model="tiny-z-image", steps=8)
        engine.add(large)
        engine.add(neighbour)
        order, steps = [], []
        while engine.jobs:
            report = engine.step()
            steps.append(report.progress.get(neighbour.id, (8, 8))[0])
            order += [item.job.id for item in report.rendered]
        # one step of the neighbour for every tile, and it is done first
        assert steps[:8] == list(range(1, 9))
        assert order == [neighbour.id, large.id]
        assert len(steps) > 16
        engine.pipeline.upscalers._nets["ESRGAN"] = net

    def test_a_net_that_breaks_fails_its_job_alone(
        self, engine: StepEngine, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        net = engine.pipeline.upscalers.get("Compact")
        engine.pipeline.upscalers._nets["Compact"] = replace(net, model=lambda unit: unit.repeat(1, 1, 2, 2) * torch.nan)
        broken = claimed(catalogue, model="tiny-z-image", upscale={"model": "Compact", "scale": 2})
        fine = claimed(catalogue, model="tiny-z-image", steps=6)
        ended: dict[str, RenderedJob | FailedJob] = {}
        engine.add(broken)
        engine.add(fine)
        while engine.jobs:
            report = engine.step()
            ended |= {item.job.id: item for item in (*report.rendered, *report.failed)}
        failed = ended[broken.id]
        assert isinstance(failed, FailedJob)
        assert failed.failure.code == "nan_output"
        assert isinstance(ended[fine.id], RenderedJob)
        engine.pipeline.upscalers._nets["Compact"] = net


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pickled", "is no .safetensors file here"),
        ("wrong-scale", "enlarges 2 times, the catalogue says 4"),
        ("a-vae", "upscaler a-vae"),
        ("other-file", "the catalogue says 000"),
    ],
)
def test_what_cannot_be_loaded_is_named(upscalers: Upscalers, folder: Path, name: str, says: str) -> None:
    (folder / "net.pth").write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(RenderError, match=says) as caught:
        upscalers.get(name)
    assert caught.value.code == "model_invalid"


def test_a_request_names_an_upscaler_that_there_is(catalogue: Catalogue, tmp_path: Path) -> None:
    for fields, field, remedy in (
        ({"model": "magic", "scale": 2}, "upscale.model", "lanczos or ESRGAN"),
        ({"model": "Compact", "scale": 3}, "upscale.scale", "use 2 or less, or lanczos"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            catalogue.resolve(JobRequest.model_validate({"prompt": "x", "upscale": fields}))
        assert caught.value.errors[0].field == field
        assert remedy in caught.value.errors[0].remedy
    (tmp_path / "models.toml").write_text('[models]\n[upscalers.lanczos]\nsource = "x.safetensors"\nscale = 2\n')
    with pytest.raises(ConfigurationError):
        Catalogue.read(tmp_path / "models.toml")


@pytest.mark.process
def test_nobody_else_sees_the_stand_ins() -> None:
    code = """
import sys
import worker.models.loading
from worker.upscalers.spandrel_import import import_spandrel
import_spandrel()
import transformers.utils, diffusers
assert not [name for name in sys.modules if name.startswith("torchvision")], sys.modules.keys()
assert not transformers.utils.is_torchvision_available()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
