"""The page on tables: its snippets, as they stand and in their order, against a running farm."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from imagefarm import Client
from imagefarm.settings import PROJECT_ROOT
from tests.e2e.test_product import photo_on_white
from tests.e2e.up import Up, clean_environment

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (PROJECT_ROOT / "docs" / "tables.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
PRODUCTS, PHOTOGRAPHED = (text for language, text in BLOCKS if language == "csv")
DRY_RUN, SUBMIT, WITH_PHOTOS, AGAIN, REPORT = (text for language, text in BLOCKS if language == "sh")


def test_every_snippet(farm: Up, client: Client, tmp_path: Path) -> None:
    command = tmp_path / "bin" / "imagefarm"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m imagefarm "$@"\n')
    command.chmod(0o755)
    (tmp_path / "products.csv").write_text(PRODUCTS)
    (tmp_path / "photographed.csv").write_text(PHOTOGRAPHED)
    photo_on_white().save(tmp_path / "box.png")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(tmp_path / "box.png", "photos/box.png")

    def run(script: str) -> str:
        environment = clean_environment(IMAGEFARM_URL=farm.url)
        environment["PATH"] = f"{command.parent}:{environment['PATH']}"
        script = script.replace("http://127.0.0.1:8000", farm.url)
        words = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert run(DRY_RUN).startswith("6 pictures")
    run(SUBMIT)
    first = {path.name: path.read_bytes() for path in (tmp_path / "spring").glob("*.png")}
    assert sorted(first) == [f"{sku}-{view}.png" for sku in ("MUG-01", "MUG-02", "TEE-07") for view in ("front", "side")]
    photographed = client.batches.wait(json.loads(run(WITH_PHOTOS))["id"], timeout_s=120)
    assert photographed.counts.succeeded == 2
    recipes = {job.labels["sku"]: job.recipe for job in client.jobs.list(batch=photographed.id)}
    assert (recipes["BOX-1"]["subject"]["shadow"], recipes["BOX-2"]["subject"]) == (0.4, None)
    told = run(AGAIN)
    assert "4 reused, 2 changed" in told
    second = {path.name: path.read_bytes() for path in (tmp_path / "spring-2").glob("*.png")}
    assert {name for name in first if first[name] == second[name]} == {name for name in first if "MUG-02" not in name}
    report = run(REPORT.replace("BATCH", next(word for word in told.split() if word.startswith("batch_") and word[-1] != ":")))
    changes = [row["change"] for row in csv.DictReader(io.StringIO(report.removeprefix("\ufeff")))]
    assert changes == ["reused", "changed", "reused"]
