"""`imagefarm submit` with every field of a recipe: files become assets, and the studio's command asks for the same picture."""

import json
import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from api.pages.studio.code_samples import write_code_samples
from imagefarm import Client
from imagefarm.cli import submit as submit_command
from imagefarm.model_entry import LoraEntry
from tests.api.farm_api import FarmApi
from tests.imagefarm.cli.test_commands import Command, run

__all__ = ["run"]


@pytest.fixture
def job_of(run: Command, client: Client, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Submit by the command line and return the job."""
    monkeypatch.setattr(submit_command, "connect", lambda url, key: nullcontext(client))

    def submitted(*words: str | Path) -> dict[str, Any]:
        outcome = run("submit", "--no-wait", "--json", *words)
        assert outcome.code == 0, outcome.err
        return dict(json.loads(outcome.out))

    return submitted


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "mug.png"
    Image.new("RGB", (64, 64), "brown").save(path)
    return path


def same_again(job_of: Any, job: dict[str, Any]) -> None:
    """The command that the studio shows makes the same recipe."""
    [name, command, *words] = shlex.split(write_code_samples("http://localhost:8000", job["recipe"], job["count"]).cli)
    assert (name, command) == ("imagefarm", "submit")
    again = job_of(*words)
    assert (again["recipe"], again["count"]) == (job["recipe"], job["count"])


def test_a_picture_is_begun_from_and_a_part_of_it_painted_anew(api: FarmApi, job_of: Any, photo: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    Image.new("L", (64, 64), 255).save(mask)
    job = job_of("a mug", "--init-image", photo, "--mask", mask, "--strength", "0.4", "--format", "webp", "--quality", "80",
                 "--upscale", "lanczos:3", "--count", "2")  # fmt: skip
    recipe = job["recipe"]
    names = {item["id"]: item["name"] for item in api.get("/api/v1/assets")["items"]}
    assert (names[recipe["init_image"]], names[recipe["mask"]]) == ("mug.png", "mask.png")
    assert (recipe["strength"], recipe["format"], recipe["quality"]) == (0.4, "webp", 80)
    assert recipe["upscale"] == {"model": "lanczos", "scale": 3}
    same_again(job_of, job)


def test_a_product_stays_and_its_photo_is_sent_once(job_of: Any, photo: Path) -> None:
    job = job_of("a table", "--subject", photo, "--subject-mask", photo, "--subject-place", "0.25,0.6,0.5",
                 "--shadow", "0.3", "--feather", "2.5")  # fmt: skip
    subject = job["recipe"]["subject"]
    assert subject["mask"] == subject["image"]
    assert subject["place"] == {"x": 0.25, "y": 0.6, "scale": 0.5}
    assert (subject["shadow"], subject["feather"]) == (0.3, 2.5)
    same_again(job_of, job)
    plain = job_of("a table", "--subject", subject["image"], "--subject-mask", "white", "--subject-place", "0.5,0.7")
    assert plain["recipe"]["subject"]["place"] == {"x": 0.5, "y": 0.7, "scale": None}
    same_again(job_of, plain)


def test_loras_with_a_weight_and_without(api: FarmApi, job_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gold", "ring: fine"):
        monkeypatch.setitem(api.app_context.catalogue.loras, name, LoraEntry(source="x", families=("sd15",)))
    job = job_of("a ring", "--model", "sd15", "--negative=-fog", "--lora", "gold", "--lora", "ring: fine:-0.75")
    assert job["recipe"]["loras"] == [{"name": "gold", "weight": 1.0}, {"name": "ring: fine", "weight": -0.75}]
    assert job["recipe"]["negative_prompt"] == "-fog"
    same_again(job_of, job)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--upscale", "lanczos:big"], "write it like lanczos:2"),
        (["--lora", "gold:much"], "write it like gold:0.8"),
        (["--lora", ":1"], "write it like gold:0.8"),
        (["--subject", "mug.png", "--subject-place", "0.5"], "write it like 0.5,0.6"),
        (["--subject", "mug.png", "--subject-place", "0.5,nan"], "write it like 0.5,0.6"),
        (["--init-image", "no-such.png"], "'no-such.png' is not a file here; name a file, a URL or an asset's id"),
        (["--init-image", "."], "is not a file here"),
        (["--init-image", "x" * 5000], "is not a file here"),
        (["--subject", "mug.png", "--subject-mask", "red"], "name alpha, white, a file"),
        (["--shadow", "0.5"], "name its photo with --subject"),
        (["--subject-place", "0.5,0.5"], "name its photo with --subject"),
        (["--guidance", "nan"], "is not a finite number"),
        (["--strength", "inf"], "is not a finite number"),
        (["--format", "gif"], "'png', 'jpeg', 'webp'"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_sent(
    run: Command, photo: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(photo.parent)
    monkeypatch.setattr(submit_command, "connect", lambda url, key: pytest.fail("talked to a farm"))
    outcome = run("submit", "a mug", *words)
    assert outcome.code == 2
    [line] = [line for line in outcome.err.splitlines() if line.startswith("Error: ")]
    assert says in line


def test_what_the_farm_refuses_names_its_field(run: Command, client: Client, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(submit_command, "connect", lambda url, key: nullcontext(client))
    (tmp_path / "x.png").write_bytes(b"no picture")
    outcome = run("submit", "a mug", "--init-image", tmp_path / "x.png")
    assert (outcome.code, "is not a PNG, JPEG or WebP picture" in outcome.err) == (2, True)
    outcome = run("submit", "a mug", "--lora", "nothing:2")
    assert (outcome.code, "loras.0.name" in outcome.err) == (2, True)
