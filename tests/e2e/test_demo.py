"""`make demo`, whole: a table in, twelve pictures out that show what their rows say, nothing left running."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import psutil
import pytest
from PIL import Image

from imagefarm.settings import PROJECT_ROOT
from tests.e2e.up import COMMAND, clean_environment
from tools.demo_model.checker import matches

SHOWS = {
    "MUG-RED": ("mug", "red", "white"),
    "BOTTLE-BLUE": ("bottle", "blue", "yellow"),
    "TSHIRT-GREEN": ("tshirt", "green", "white"),
    "CHAIR-PURPLE": ("chair", "purple", "white"),
    "LAMP-YELLOW": ("lamp", "yellow", "blue"),
    "BOX-PINK": ("box", "pink", "green"),
    "BEIZI-LAN": ("mug", "blue", "white"),
    "PINGZI-LV": ("bottle", "green", "pink"),
    "TXU-HONG": ("tshirt", "red", "white"),
    "QIU-HUANG": ("ball", "yellow", "purple"),
    "WUJIAOXING-HUANG": ("star", "yellow", "blue"),
    "AIXIN-HONG": ("heart", "red", "pink"),
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One run of the demo, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("demo")
    run = subprocess.run([*COMMAND, "demo"], cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=240)
    return run, folder


def test_it_ends_well_and_leaves_nothing(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    run, folder = demo
    assert run.returncode == 0, run.stderr
    assert "12 of 12 pictures" in run.stdout
    assert not (folder / "outputs" / "demo" / ".farm").exists()
    left = [process.pid for process in psutil.process_iter(["cwd"]) if (process.info["cwd"] or "").startswith(str(folder))]
    assert left == []


def test_every_picture_shows_its_product(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, folder = demo
    with (PROJECT_ROOT / "examples" / "products.csv").open(encoding="utf-8") as file:
        assert [row["sku"] for row in csv.DictReader(file)] == list(SHOWS)
    wrong = {}
    for sku, (obj, color, background) in SHOWS.items():
        with Image.open(folder / "outputs" / "demo" / f"{sku}.png") as picture:
            seen = matches(picture, obj, color, background)
        if not all(seen.values()):
            wrong[sku] = seen
    assert wrong == {}


def test_the_audit_table_and_the_sheet(demo: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    run, folder = demo
    header, *rows = run.stdout.splitlines()[:13]
    assert header.split() == ["image", "SKU", "prompt", "seed", "model", "ms", "sha256"]
    assert [row.split()[1] for row in rows] == list(SHOWS)
    assert "一颗红色爱心, 粉色背景" in rows[-1]
    with Image.open(folder / "outputs" / "demo" / "contact-sheet.png") as sheet:
        assert sheet.width > 4 * 128
        assert sheet.height > 3 * 128
