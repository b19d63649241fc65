"""Peaks of passes are measured and bound the running set; learned limits are stored."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
import torch

from tests.worker.model_jobs import SmallModels, finish
from worker.engine.engine import StepEngine
from worker.families.base import Sample
from worker.memory.micro_batch_limits import MAX_PEAKS, MEASUREMENTS, MicroBatchLimits
from worker.memory.peak_memory import ResidentSizeMeter, headroom

MIB = 2**20


class Books:
    """A meter with an allocator's exact books, in which every image of a pass takes 10 MiB."""

    bounds = True

    def __init__(self) -> None:
        self.images = 0
        self.begun = 0

    def begin(self) -> None:
        self.begun += 1

    def peak(self) -> int | None:
        return self.images * 10 * MIB


def test_limits_hold_for_larger_sizes_only() -> None:
    limits = MicroBatchLimits()
    limits.learn(1000, 4)
    limits.learn(4000, 1)
    limits.learn(4000, 2)
    assert [limits.cap(size, 16) for size in (500, 1000, 3999, 4000, 9000)] == [16, 4, 4, 1, 1]
    assert limits.cap(500, 2) == 2


def test_peaks_bound_passes_and_the_running_set(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, books, passes = models.fresh("tiny-z-image"), Books(), list[int]()
    predict = pipeline.family.predict

    def counted(samples: Sequence[Sample]) -> list[torch.Tensor]:
        books.images = len(samples)
        passes.append(len(samples))
        return predict(samples)

    monkeypatch.setattr(pipeline.family, "predict", counted)
    engine = StepEngine(pipeline, max_images=8)
    engine.meter, engine.headroom = books, 35 * MIB
    engine.add(models.job("tiny-z-image", count=6, steps=3))
    assert engine.room == 2
    engine.step()
    assert passes == [6], "nothing was known yet"
    assert (engine.current_max_images, engine.room) == (3, 0)
    engine.step()
    assert passes == [6, 3, 3]
    finish(engine)
    assert (engine.current_max_images, engine.room) == (3, 3), "also for what is claimed while it is empty"
    begun = books.begun
    for _ in range(2 * MEASUREMENTS):
        engine.add(models.job("tiny-z-image", count=3, steps=1))
        finish(engine)
    assert books.begun < begun + 4 * MEASUREMENTS, "a known shape is not measured again and again"


def test_a_meter_that_is_not_exact_bounds_nothing(models: SmallModels) -> None:
    engine = StepEngine(models.fresh("tiny-z-image"), max_images=8)
    assert headroom(torch.device("cpu")) is None
    engine.headroom = 1
    engine.add(models.job("tiny-z-image", count=4, steps=2))
    finish(engine)
    assert engine.current_max_images == 8


def test_resident_size_sees_a_peak() -> None:
    meter = ResidentSizeMeter()
    meter.begin()
    torch.ones(64 * MIB, dtype=torch.uint8).sum()
    peak = meter.peak()
    if peak is not None:  # Linux
        assert peak > 48 * MIB


def test_an_image_takes_what_its_like_took() -> None:
    limits = MicroBatchLimits()
    assert limits.cap(4096, 16, free=1) == 16
    limits.measured(64, 1, 64 * 1000)  # mostly what any pass takes
    limits.measured(4096, 2, 4096 * 2 * 100)
    assert limits.cap(4096, 16, free=4096 * 100 * 5) == 5
    assert limits.cap(8192, 16, free=4096 * 100 * 5) == 2
    assert limits.cap(64, 16, free=64 * 1000 * 3) == 3
    assert limits.cap(4096, 16, free=0) == 1
    assert limits.cap(4096, 16) == 16


def test_limits_survive_as_json() -> None:
    limits = MicroBatchLimits()
    for size in range(1, 2 * MAX_PEAKS):
        limits.measured(size, 1, size * 10)
    limits.learn(1000, 3)
    limits.learn_alone(5000)
    data = json.loads(json.dumps(limits.as_data()))
    assert len(data["peaks"]) == MAX_PEAKS
    again = MicroBatchLimits()
    again.learn(1000, 2)
    again.changed = False
    again.restore(data)
    assert not again.changed
    assert again.cap(1000, 16) == 2
    assert again.bytes_per_unit(100) == 10
    assert (again.fails_alone(4999), again.fails_alone(5000)) == (False, True)
    MicroBatchLimits().restore({})
