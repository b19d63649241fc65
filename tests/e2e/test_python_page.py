"""The snippets of docs/python.md, as they stand, against a running farm."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

from imagefarm import Client
from imagefarm.client import errors
from imagefarm.client.resource import Listing, Operation, Resource
from imagefarm.settings import PROJECT_ROOT
from tests.e2e.up import Up, clean_environment

PAGE = (PROJECT_ROOT / "docs" / "python.md").read_text("utf-8")
SAYS = ("MUG-01-2.png", "4 of 4 succeeded", "a red mug", "\n3\n", "steps: is more than 200; use at most 200")


def test_every_snippet(farm: Up, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for block, words in zip(blocks, SAYS, strict=True):
        (tmp_path / "snippet.py").write_text(block, "utf-8")
        done = subprocess.run(
            [sys.executable, "snippet.py"],
            cwd=tmp_path,
            env=clean_environment(IMAGEFARM_URL=farm.url),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert words in f"\n{done.stdout}"
    assert len(list((tmp_path / "catalogue").glob("*.png"))) == 4


def test_the_tables_list_every_operation_and_error() -> None:
    rows = dict(re.findall(r"^\| `farm\.(\w+)` \| ([^|;]+)", PAGE, re.MULTILINE))
    with Client("http://farm") as farm:
        for name, resource in vars(farm).items():
            if isinstance(resource, Resource):
                operations = {key for key, value in vars(type(resource)).items() if isinstance(value, Operation | Listing)}
                assert set(rows[name].strip().split(", ")) == operations, name
    listed = set(re.findall(r"^\| `(\w+Error)` \|", PAGE, re.MULTILINE))
    assert listed == {name for name, value in vars(errors).items() if inspect.isclass(value) and name.endswith("Error")} - {
        "FarmError",
        "FieldError",
    }
