"""The README's snippets, as they stand, against a running farm."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from imagefarm.settings import PROJECT_ROOT
from tests.e2e.up import Up, clean_environment

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (PROJECT_ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)


def block(kind: str, word: str) -> str:
    """The one snippet of a language that has this word."""
    found = [text for language, text in BLOCKS if language == kind and word in text]
    assert len(found) == 1
    return found[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader stands: the project's folder, as far as the snippets use it."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    command = tmp_path / ".venv" / "bin" / "imagefarm"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m imagefarm "$@"\n')
    command.chmod(0o755)
    (tmp_path / "examples").symlink_to(PROJECT_ROOT / "examples")
    return tmp_path


def run(script: str, folder: Path, farm: Up) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(IMAGEFARM_URL=farm.url)
    script = script.replace("http://127.0.0.1:8000", farm.url)
    return subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_command_line(farm: Up, folder: Path) -> None:
    done = run(block("sh", "imagefarm submit"), folder, farm)
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "pictures").glob("*.png"))) == 13
    assert (folder / "pictures" / "MUG-RED.png").is_file()
    assert "12 succeeded" in done.stdout


def test_curl(farm: Up, folder: Path) -> None:
    done = run(block("sh", "curl"), folder, farm)
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert (job["state"], job["recipe"]["seed"], len(job["images"])) == ("succeeded", "42", 1)


def test_python(farm: Up, folder: Path) -> None:
    script = folder / "snippet.py"
    script.write_text(block("python", "Client").replace("http://127.0.0.1:8000", farm.url), "utf-8")
    done = subprocess.run([sys.executable, script], cwd=folder, env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [Path(line).is_file() or (folder / line).is_file() for line in done.stdout.split()] == [True, True]


def test_the_example_program(farm: Up, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, PROJECT_ROOT / "examples" / "catalogue.py"],
        cwd=folder,
        env=clean_environment(IMAGEFARM_URL=farm.url),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 pictures, about ")
    assert len(list((folder / "catalogue").glob("*.png"))) == 12
