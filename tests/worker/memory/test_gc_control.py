"""Objects that a worker froze are not examined by Python's collector, and are still freed when their references end."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch

from imagefarm.gc_control import freeze_startup_objects
from worker.memory.device_cache import free_cached
from worker.memory.gc_control import collect_frozen


class Knot:
    """Something that only a collector can free."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_was_set_aside_goes_when_a_model_is_let_go() -> None:
    knot = Knot()
    gone = weakref.ref(knot)
    freeze_startup_objects()
    del knot
    gc.collect()
    assert gone() is not None, "the collector does not examine it"
    free_cached(torch.device("cpu"))
    assert gone() is None
    assert gc.get_freeze_count() > 0, "the rest stays set aside"


def test_garbage_is_collected_after_few_objects() -> None:
    freeze_startup_objects()
    full = gc.get_stats()[2]["collections"]
    for _ in range(200_000):
        Knot()
    assert gc.get_stats()[2]["collections"] - full >= 2


def test_nothing_is_set_aside_where_nobody_asked() -> None:
    assert gc.get_freeze_count() == 0
    collect_frozen()
    assert gc.get_freeze_count() == 0
