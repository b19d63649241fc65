"""Claim prefetch: which places bulk may take, and which are kept for those who wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from imagefarm.settings import Settings
from scheduler.queue.claim import ClaimLimits
from worker.render.claim_prefetch import ClaimPrefetcher, RunningSetCapacity, reserved


@pytest.fixture
def prefetcher(settings: Settings) -> ClaimPrefetcher:
    context: Any = SimpleNamespace(settings=settings)
    return ClaimPrefetcher(context)


def claim_limits(prefetcher: ClaimPrefetcher, free: int, max_images: int) -> ClaimLimits | None:
    """The limits of a claim between two fair decisions, with `free` places in the running set."""
    prefetcher._fair_at = now = 1000.0
    return prefetcher._limits(RunningSetCapacity(free, max_images, "demo|"), now)


@pytest.mark.parametrize("max_images", [4, 5, 8, 12, 16, 64])
def test_bulk_never_takes_the_reserve(prefetcher: ClaimPrefetcher, max_images: int) -> None:
    reserve = reserved(max_images)
    assert reserve >= 1
    for free in range(reserve + 1, max_images + 1):
        limits = claim_limits(prefetcher, free, max_images)
        assert limits is not None
        assert (limits.images, limits.interactive_only) == (free - reserve, False)
    for free in range(1, reserve + 1):
        limits = claim_limits(prefetcher, free, max_images)
        assert limits is not None
        assert (limits.images, limits.interactive_only) == (free, True)
    assert claim_limits(prefetcher, 0, max_images) is None


@pytest.mark.parametrize("max_images", [1, 2, 3])
def test_a_few_places_are_everybodys(prefetcher: ClaimPrefetcher, max_images: int) -> None:
    limits = claim_limits(prefetcher, 1, max_images)
    assert limits is not None
    assert (limits.images, limits.interactive_only) == (1, False)
