"""The small farm as a fixture, on each kind of database."""

from __future__ import annotations

import pytest

from imagefarm.catalogue import Catalogue
from imagefarm.settings import Settings
from imagefarm.store import Store
from scheduler.queue.limits import CALLING_KEY
from tests.small_farm import SmallFarm


@pytest.fixture
def farm(store: Store, catalogue: Catalogue, settings: Settings) -> SmallFarm:
    CALLING_KEY.set(None)  # whoever asked last in this process, in a test of the API
    return SmallFarm(store, catalogue, settings)
