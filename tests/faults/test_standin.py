"""The fault campaign's stand-in for the renderer has every name that the worker asks the real one for."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from imagefarm.settings import PROJECT_ROOT

STANDIN = PROJECT_ROOT / "tests/faults/hooks/standin.py"
REAL = {"StepEngine": "worker/engine/engine.py", "Residency": "worker/models/residency.py"}


@pytest.fixture(scope="module")
def standin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("standin", STANDIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["standin"] = module
    spec.loader.exec_module(module)
    return module


def public_names(path: Path, name: str) -> set[str]:
    """Methods and properties of a class, read without importing torch."""
    tree = ast.parse(path.read_text("utf-8"))
    [found] = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name]
    return {node.name for node in found.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}


@pytest.mark.parametrize("name", list(REAL))
def test_the_stand_in_can_what_the_real_one_can(standin: ModuleType, name: str) -> None:
    made = {"StepEngine": lambda: standin.StepEngine(None, max_images=8), "Residency": lambda: standin.Residency(None, None)}
    thing = made[name]()
    missing = {attribute for attribute in public_names(PROJECT_ROOT / REAL[name], name) if not hasattr(thing, attribute)}
    assert not missing
