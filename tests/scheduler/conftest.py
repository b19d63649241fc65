"""The small farm as a fixture, on each kind of database."""

from __future__ import annotations

import pytest

from imagefarm.catalogue import Catalogue
from imagefarm.settings import Settings
from imagefarm.store import Store
from tests.small_farm import SmallFarm


@pytest.fixture
def farm(store: Store, catalogue: Catalogue, settings: Settings) -> SmallFarm:
    return SmallFarm(store, catalogue, settings)
