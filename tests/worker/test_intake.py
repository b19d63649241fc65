"""Intake: which places bulk may take, and which are kept for those who wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from imagefarm.settings import Settings
from scheduler.claim import ClaimLimits
from worker.intake import Intake, Room, reserved


@pytest.fixture
def intake(settings: Settings) -> Intake:
    context: Any = SimpleNamespace(settings=settings)
    return Intake(context)


def asked(intake: Intake, free: int, most: int) -> ClaimLimits | None:
    """What is asked for between two fair decisions, beside a running set with `free` places."""
    intake._fair_at = now = 1000.0
    return intake._limits(Room(free, most, "demo|"), now)


@pytest.mark.parametrize("most", [4, 5, 8, 12, 16, 64])
def test_bulk_never_takes_the_reserve(intake: Intake, most: int) -> None:
    reserve = reserved(most)
    assert reserve >= 1
    for free in range(reserve + 1, most + 1):
        limits = asked(intake, free, most)
        assert limits is not None
        assert (limits.images, limits.interactive_only) == (free - reserve, False)
    for free in range(1, reserve + 1):
        limits = asked(intake, free, most)
        assert limits is not None
        assert (limits.images, limits.interactive_only) == (free, True)
    assert asked(intake, 0, most) is None


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_few_places_are_everybodys(intake: Intake, most: int) -> None:
    limits = asked(intake, 1, most)
    assert limits is not None
    assert (limits.images, limits.interactive_only) == (1, False)
