"""LoRAs by name and weight: as diffusers applies them, gone without a trace, and never mixed in one running set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, ZImagePipeline
from safetensors.torch import load_file, save_file

from scheduler.queue.retry import FailureClass
from tests.worker.engine.test_equal_to_pipeline import OFFLINE, run
from tests.worker.model_jobs import SmallModels, finish, pictures
from worker.engine.engine import StepEngine
from worker.failures import AttemptFailed
from worker.models.loading import LoadedPipeline
from worker.models.lora_coverage import placed_share

TWO = [{"name": "clay", "weight": 0.5}, {"name": "ink.v1", "weight": -0.7}]


@pytest.fixture
def pipeline(models: SmallModels) -> LoadedPipeline:
    return models.fresh("tiny-sd15")


def test_two_loras_as_diffusers_applies_them(models: SmallModels, pipeline: LoadedPipeline) -> None:
    job = models.job("tiny-sd15", loras=TWO)
    (made,) = pictures(StepEngine(pipeline, max_images=1), job)
    pipe = StableDiffusionPipeline.from_pretrained(models.folder / "sd15", **OFFLINE)
    pipe.set_progress_bar_config(disable=True)
    for name in ("clay", "ink"):
        pipe.load_lora_weights(models.folder / name, adapter_name=name, use_safetensors=True)
    pipe.set_adapters(["clay", "ink"], [0.5, -0.7])
    assert np.array_equal(made, run(pipe, job))


def test_z_image_takes_loras(models: SmallModels) -> None:
    job = models.job("tiny-z-image", loras=[{"name": "brush", "weight": 0.9}])
    (made,) = pictures(StepEngine(models.fresh("tiny-z-image"), max_images=1), job)
    pipe = ZImagePipeline.from_pretrained(models.folder / "z-image", **OFFLINE)
    pipe.set_progress_bar_config(disable=True)
    plain = run(pipe, job)
    pipe.load_lora_weights(models.folder / "brush", adapter_name="brush", use_safetensors=True)
    pipe.set_adapters(["brush"], [0.9])
    assert np.array_equal(made, run(pipe, job))
    assert not np.array_equal(made, plain)


def test_sets_change_between_jobs_and_leave_no_trace(models: SmallModels, pipeline: LoadedPipeline) -> None:
    engine = StepEngine(pipeline, max_images=1)
    sets: list[list[dict[str, Any]]] = [[], TWO, [TWO[0]], [{"name": "clay", "weight": 1.0}], [TWO[1]], []]
    made = [pictures(engine, models.job("tiny-sd15", loras=loras))[0] for loras in sets]
    assert np.array_equal(made[0], made[-1])
    assert len({picture.tobytes() for picture in made}) == len(sets) - 1
    fresh = StepEngine(models.fresh("tiny-sd15"), max_images=1)
    assert np.array_equal(made[2], pictures(fresh, models.job("tiny-sd15", loras=[TWO[0]]))[0])
    weights = pipeline.family.denoiser.state_dict()
    assert all(
        torch.equal(tensor, weights[name]) for name, tensor in fresh.family.pipe.unet.state_dict().items() if name in weights
    )


def test_order_in_the_recipe_does_not_matter(models: SmallModels, pipeline: LoadedPipeline) -> None:
    engine = StepEngine(pipeline, max_images=1)
    one, other = (pictures(engine, models.job("tiny-sd15", loras=loras))[0] for loras in (TWO, TWO[::-1]))
    assert np.array_equal(one, other)


def test_another_set_cannot_join(models: SmallModels, pipeline: LoadedPipeline) -> None:
    engine = StepEngine(pipeline, max_images=4)
    job = models.job("tiny-sd15", loras=TWO)
    engine.add(job)
    with pytest.raises(ValueError, match="cannot join"):
        engine.add(models.job("tiny-sd15"))
    facts = finish(engine)[job.id].images[0].facts["loras"]  # type: ignore[union-attr]
    assert [(fact["name"], fact["weight"], len(fact["sha256"])) for fact in facts] == [("clay", 0.5, 64), ("ink.v1", -0.7, 64)]


@pytest.mark.parametrize(("name", "said"), [("lost", "LoRA lost: "), ("wrong", "LoRA wrong does not fit model tiny-z-image")])
def test_a_lora_that_cannot_be_used_fails_its_job_and_is_gone(models: SmallModels, name: str, said: str) -> None:
    pipeline = models.fresh("tiny-z-image")
    engine = StepEngine(pipeline, max_images=1)
    (plain,) = pictures(engine, models.job("tiny-z-image"))
    with pytest.raises(AttemptFailed) as caught:
        engine.add(models.job("tiny-z-image", loras=[{"name": "brush"}, {"name": name}]))
    assert caught.value.failure.kind is FailureClass.MODEL
    assert said in caught.value.detail
    assert np.array_equal(pictures(engine, models.job("tiny-z-image"))[0], plain)


def partly(models: SmallModels, source: str, target: str, rename: Callable[[str], str | None]) -> None:
    """Write the LoRA `source` as `target`, with renamed tensors."""
    (file,) = (models.folder / source).glob("*.safetensors")
    tensors = {name: tensor for old, tensor in load_file(file).items() if (name := rename(old)) is not None}
    (models.folder / target).mkdir(exist_ok=True)
    save_file(tensors, models.folder / target / file.name)


@pytest.mark.parametrize(("source", "model"), [("clay", "tiny-sd15"), ("brush", "tiny-z-image")])
def test_a_lora_of_which_a_part_fits_says_so(
    models: SmallModels, source: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(name: str) -> str:
        """Every to_v is one that the model has not."""
        return name.replace("to_v", "no_such_block.to_v")

    partly(models, source, "partly", elsewhere)
    (file,) = (models.folder / "partly").glob("*.safetensors")
    monkeypatch.setattr("worker.models.loras.lora_file", lambda _, name: file)
    engine = StepEngine(models.fresh(model), max_images=1)
    job = models.job(model, loras=[{"name": source}])
    engine.add(job)
    image = finish(engine)[job.id].images[0]  # type: ignore[union-attr]
    assert image.warnings == ["lora_partial"]
    assert 0 < image.facts["loras"][0]["placed"] < 1


@pytest.mark.parametrize(("model", "loras"), [("tiny-sd15", TWO), ("tiny-z-image", [{"name": "brush"}])])
def test_a_lora_that_fits_whole_has_no_warning(models: SmallModels, model: str, loras: list[dict[str, Any]]) -> None:
    engine = StepEngine(models.fresh(model), max_images=1)
    job = models.job(model, loras=loras)
    engine.add(job)
    image = finish(engine)[job.id].images[0]  # type: ignore[union-attr]
    assert image.warnings == []
    assert all("placed" not in fact for fact in image.facts["loras"])


def test_what_is_no_pair_of_a_lora_counts_as_not_placed(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    pair = {"unet.a.lora_A.weight": torch.ones(2, 8), "unet.a.lora_B.weight": torch.ones(8, 2), "unet.a.alpha": torch.ones(())}
    save_file(pair, file)
    layers = torch.nn.Module()
    layers.lora_B = torch.nn.ModuleDict({"one": torch.nn.Linear(2, 8, bias=False)})
    pipe = SimpleNamespace(components={"unet": layers})
    assert placed_share(pipe, "one", file) == 1
    assert placed_share(pipe, "other", file) == 0
    save_file(pair | {"unet.b.hada_w1_a": torch.ones(8, 2)}, file)
    assert placed_share(pipe, "one", file) == 0.5
