"""A short mix of the campaign: one run of each fault that tests a central promise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.campaign import FAULTS
from tests.faults.farm import FaultFarm
from tests.faults.run import perform

JOBS = 16
ON_SQLITE = ["redis-restarted-empty", "child-killed", "cancel-races", "poison-job"]
"""With the demo model."""
ON_POSTGRESQL = [
    "killed-after-rename",
    "frozen-before-commit",
    "worker-killed",
    "commit-answer-lost",
    "loop-broken",
    "api-killed-in-bulk",
]
"""On the device `fake`: these faults hit claims, leases and commits."""

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultFarm]:
    yield from living(FaultFarm(tmp_path_factory.mktemp("faults") / "farm"))


@pytest.fixture(scope="module")
def on_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultFarm]:
    constants = FAULTS["api-killed-in-bulk"].farm["constants"]
    folder = tmp_path_factory.mktemp("faults") / "farm"
    yield from living(FaultFarm(folder, database="postgresql", fake=True, constants=constants))


def living(farm: FaultFarm) -> Iterator[FaultFarm]:
    try:
        farm.start()
        yield farm
    finally:
        farm.stop()


@pytest.mark.parametrize("name", ON_SQLITE)
def test_on_sqlite(on_sqlite: FaultFarm, name: str) -> None:
    check(on_sqlite, name)


@pytest.mark.parametrize("name", ON_POSTGRESQL)
def test_on_postgresql(on_postgresql: FaultFarm, name: str) -> None:
    check(on_postgresql, name)


def check(farm: FaultFarm, name: str) -> None:
    outcome = perform(farm, FAULTS[name], seed=1, jobs=JOBS)
    assert outcome.verdict.flaws == []
    assert outcome.verdict.accepted >= 2
