"""What the farm promises of a picture, through HTTP, Redis, Celery and SQL: the same again, or another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagefarm import Client
from imagefarm.imaging.metadata import read_metadata
from imagefarm.settings import PROJECT_ROOT
from tests.e2e.up import Up
from tools.demo_model.checker import matches

PROMPT = "白色背景上的红色马克杯"


def test_a_seed_gives_the_same_pixels_again_and_another_seed_does_not(client: Client) -> None:
    first, again, other = (client.jobs.submit(PROMPT, model="demo", seed=seed) for seed in (42, 42, 43))
    hashes = [client.jobs.wait(job, check=True).images[0].pixel_sha256 for job in (first, again, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert first.recipe_hash == again.recipe_hash != other.recipe_hash


def test_the_file_shows_the_prompt_and_leads_back_to_its_job(client: Client, tmp_path: Path) -> None:
    job = client.jobs.wait(client.jobs.submit("a blue chair, yellow background", model="demo", seed=3, count=2), check=True)
    paths = client.jobs.download(job, tmp_path)
    for index, path in enumerate(paths):
        with Image.open(path) as picture:
            assert all(matches(picture, "chair", "blue", "yellow").values())
        says = read_metadata(path.read_bytes())
        assert says["settings"]["Prompt"] == "a blue chair, yellow background"
        assert says["settings"]["Seed"] == str(3 + index)
        assert (says["imagefarm"]["job"], says["imagefarm"]["index"]) == (job.id, index)
        found = client.images.lookup(path)
        assert (found.found_by, found.items[0].job_id, found.items[0].index) == ("file", job.id, index)


def test_what_is_on_record_of_a_picture(client: Client) -> None:
    job = client.jobs.wait(client.jobs.submit("a green tree, white background", model="demo", labels={"sku": "T-1"}), check=True)
    record = client.images.get(job.images[0]).model_dump()
    assert record["recipe"] == job.recipe
    assert record["labels"] == {"sku": "T-1"}
    assert record["ms"] > 0
    assert {"device", "dtype"} <= set(record["audit"]) or "device" in str(record["audit"])


@pytest.fixture
def upscaling_client(tmp_path: Path) -> Iterator[Client]:
    """Of a farm with an upscaler in its catalogue: a network of a known architecture with weights of the test's own."""
    from safetensors.torch import save_file

    from tests.worker.upscalers.test_upscalers import make_net

    state = {name: tensor.contiguous().clone() for name, tensor in make_net("ESRGAN").state_dict().items()}
    save_file(state, tmp_path / "tiny.safetensors")
    catalogue = (PROJECT_ROOT / "models.toml").read_text("utf-8")
    catalogue = catalogue.replace('"models/demo"', json.dumps(str(PROJECT_ROOT / "models" / "demo")))
    entry = '\n[upscalers.tiny]\nsource = "./tiny.safetensors"\nscale = 4\n'
    (tmp_path / "models.toml").write_text(catalogue + entry, "utf-8")
    farm = Up(tmp_path / "data", IMAGEFARM_MODELS_FILE=str(tmp_path / "models.toml")).until_ready()
    try:
        with farm.client() as client:
            yield client
    finally:
        farm.close()


def test_a_picture_is_enlarged_by_a_network_and_by_lanczos(upscaling_client: Client, tmp_path: Path) -> None:
    client = upscaling_client
    sizes, shots = {}, {}
    for name, upscale in (("plain", None), ("lanczos", "lanczos"), ("network", "tiny")):
        more = {} if upscale is None else {"upscale": {"model": upscale, "scale": 4}}
        job = client.jobs.wait(client.jobs.submit(PROMPT, model="demo", seed=42, **more), check=True)
        (path,) = client.jobs.download(job, tmp_path / name)
        with Image.open(path) as picture:
            sizes[name], shots[name] = picture.size, np.asarray(picture)
        if name == "network":
            facts = client.images.get(job.images[0]).model_dump()["audit"]["upscaler"]
            assert (facts["name"], facts["architecture"], facts["scale"]) == ("tiny", "ESRGAN", 4)
    assert sizes == {"plain": (64, 64), "lanczos": (256, 256), "network": (256, 256)}
    assert not np.array_equal(shots["network"], shots["lanczos"])
