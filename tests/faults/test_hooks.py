"""The fault hooks name modules, functions and constants of the farm: each must still exist."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagefarm.settings import PROJECT_ROOT
from tests.faults.campaign import FAULTS

HOOKS = PROJECT_ROOT / "tests" / "faults" / "hooks"
PATCH_ALL = """
import importlib, sitecustomize
for name in sitecustomize.PATCHES:
    importlib.import_module(name)
    print(name)
"""


@pytest.mark.usefixtures("starts_process")
def test_each_patched_module_takes_its_patch(tmp_path: Path) -> None:
    environment = os.environ | {"FARM_FAULTS": str(tmp_path), "PYTHONPATH": f"{HOOKS}{os.pathsep}{PROJECT_ROOT}"}
    ran = subprocess.run([sys.executable, "-c", PATCH_ALL], env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "scheduler.queue.admission" in ran.stdout.split()


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS.values() if fault.farm.get("constants")], ids=lambda fault: fault.name
)
def test_each_shortened_constant_exists(fault: object) -> None:
    for module, constants in fault.farm["constants"].items():  # type: ignore[attr-defined]
        for constant in constants:
            assert hasattr(importlib.import_module(module), constant), f"{module}.{constant}"
