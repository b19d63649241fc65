"""The device `fake` has every name that the worker calls on the real one, and needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from imagefarm.catalogue import Catalogue
from imagefarm.settings import PROJECT_ROOT, Settings
from imagefarm.store import Store
from tests.small_farm import SmallFarm
from worker.fake_device import FakeEngine, FakeResidency

REAL = {"StepEngine": "worker/engine/engine.py", "Residency": "worker/models/residency.py"}


@pytest.fixture
def residency(catalogue: Catalogue, settings: Settings) -> FakeResidency:
    return FakeResidency(catalogue, settings.model_copy(update={"fake_step_s": 0.0}))


def public_names(path: Path, name: str) -> set[str]:
    """Methods and properties of a class, read without importing torch."""
    tree = ast.parse(path.read_text("utf-8"))
    [found] = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name]
    return {node.name for node in found.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}


@pytest.mark.parametrize("name", list(REAL))
def test_it_has_every_public_name_of_the_real_one(residency: FakeResidency, name: str) -> None:
    fake = residency if name == "Residency" else FakeEngine(residency.get("demo"), max_images=8)
    assert not {attribute for attribute in public_names(PROJECT_ROOT / REAL[name], name) if not hasattr(fake, attribute)}


def test_a_model_is_loaded_at_once_and_unloaded(residency: FakeResidency) -> None:
    assert residency.get("demo") is residency.get("demo")
    assert residency.names == ("demo",)
    assert residency.unload("demo")
    assert not residency.unload("demo")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_job_takes_its_steps_and_its_seed_decides_the_pixels(
    store: Store, catalogue: Catalogue, settings: Settings, residency: FakeResidency
) -> None:
    farm = SmallFarm(store, catalogue, settings)
    worker = farm.worker("worker_1")
    pictures: list[Any] = []
    for _ in range(2):
        farm.submit(steps=3, seed=7, count=2)
        [job] = farm.claim(worker)
        engine = FakeEngine(residency.get("demo"), max_images=8)
        engine.add(job)
        assert (engine.jobs, engine.compat_key, engine.room) == ([job.id], job.compat_key, 6)
        assert engine.step().progress == {job.id: (1, 3)}
        assert engine.step().rendered == []
        [rendered] = engine.step().rendered
        assert (engine.jobs, engine.room) == ([], 8)
        pictures.append([image.pixels.tobytes() for image in rendered.images])
    assert pictures[0] == pictures[1]
    assert pictures[0][0] != pictures[0][1]


@pytest.mark.process
def test_a_worker_with_it_imports_no_torch() -> None:
    code = (
        "import sys, worker.failures, worker.fake_device, worker.render.loop, worker.render_process\n"
        "worker.failures.failure_of(RuntimeError('CUDA out of memory'))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True)
