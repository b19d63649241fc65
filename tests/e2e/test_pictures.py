"""What the farm promises of a picture, through HTTP, Redis, Celery and SQL: the same again, or another."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from imagefarm import Client
from imagefarm.picture.metadata import read_metadata
from tools.demo_model.checker import matches

PROMPT = "白色背景上的红色马克杯"


def test_a_seed_gives_the_same_pixels_again_and_another_seed_does_not(client: Client) -> None:
    first, again, other = (client.submit(PROMPT, model="demo", seed=seed) for seed in (42, 42, 43))
    hashes = [client.wait(job, check=True).images[0].pixel_sha256 for job in (first, again, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert first.recipe_hash == again.recipe_hash != other.recipe_hash


def test_the_file_shows_the_prompt_and_leads_back_to_its_job(client: Client, tmp_path: Path) -> None:
    job = client.wait(client.submit("a blue chair, yellow background", model="demo", seed=3, count=2), check=True)
    paths = client.download(job, tmp_path)
    for index, path in enumerate(paths):
        with Image.open(path) as picture:
            assert all(matches(picture, "chair", "blue", "yellow").values())
        says = read_metadata(path.read_bytes())
        assert says["settings"]["Prompt"] == "a blue chair, yellow background"
        assert says["settings"]["Seed"] == str(3 + index)
        assert (says["imagefarm"]["job"], says["imagefarm"]["index"]) == (job.id, index)
        found = client.lookup(path)
        assert (found.found_by, found.items[0].job_id, found.items[0].index) == ("file", job.id, index)


def test_what_is_on_record_of_a_picture(client: Client) -> None:
    job = client.wait(client.submit("a green tree, white background", model="demo", labels={"sku": "T-1"}), check=True)
    record = client.image(job.images[0]).model_dump()
    assert record["recipe"] == job.recipe
    assert record["labels"] == {"sku": "T-1"}
    assert record["ms"] > 0
    assert {"device", "dtype"} <= set(record["audit"]) or "device" in str(record["audit"])
