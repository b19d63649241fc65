"""One embedded farm for all end-to-end tests that can share it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imagefarm import Client
from tests.e2e.up import Up


@pytest.fixture(autouse=True)
def _starts_process(starts_process: None) -> None:
    """Every end-to-end test runs a farm."""


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A farm with one worker and the demo model."""
    # half the usual lease: a killed worker's jobs come back sooner; webhooks may go to a receiver of the tests' own
    farm = Up(tmp_path_factory.mktemp("farm") / "data", IMAGEFARM_LEASE_S="15", IMAGEFARM_ALLOW_PRIVATE_URLS="true")
    try:
        yield farm.until_ready()
    finally:
        farm.close()


@pytest.fixture
def client(farm: Up) -> Iterator[Client]:
    with farm.client() as client:
        yield client
