"""Every test of the demo model's tools draws, trains or loads one."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _loads_model(loads_model: None) -> None:
    """Gives the tests of this folder the marker `model`."""
