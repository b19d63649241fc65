"""Jobs that share forward passes: they join and leave at step boundaries, and none changes what another looks like."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scheduler.queue.retry import FailureClass
from tests.worker.model_jobs import SmallModels, finish, pictures, psnr
from worker.engine.engine import StepEngine
from worker.engine.grouping import group
from worker.engine.results import FailedJob, RenderedJob
from worker.failures import AttemptFailed
from worker.inputs.input_images import Inputs

NEAR_DB = 80.0
"""Float32 differs in the last bits with the shape of a pass; a picture differs by at most a level here and there."""

MIXED: list[dict[str, Any]] = [
    {"prompt": "a red mug", "width": 64, "height": 64, "steps": 4, "seed": 1},
    {"prompt": "a blue vase with a very long description " * 4, "width": 96, "height": 64, "steps": 7, "seed": 2},
    {"prompt": "一只红色的马克杯", "width": 64, "height": 128, "steps": 3, "seed": 3},
    {"prompt": "a lamp", "width": 64, "height": 64, "steps": 6, "guidance": 3.0, "negative_prompt": "dark", "seed": 4},
    {"prompt": "two chairs", "width": 80, "height": 80, "steps": 5, "seed": 5, "count": 2},
]


@pytest.fixture(scope="module")
def alone(models: SmallModels) -> list[list[np.ndarray]]:
    """What each of MIXED looks like rendered by itself."""
    engine = models.engine("tiny-z-image", max_images=1)
    return [pictures(engine, models.job("tiny-z-image", **asked)) for asked in MIXED]


def test_five_jobs_join_and_leave(models: SmallModels, alone: list[list[np.ndarray]]) -> None:
    engine = models.engine("tiny-z-image", max_images=6)
    jobs = [models.job("tiny-z-image", **asked) for asked in MIXED]
    ended: dict[str, Any] = {}
    for job in jobs:  # one joins at every step, while the earlier ones are on their way
        engine.add(job)
        ended |= {item.job.id: item for item in engine.step().rendered}
    ended |= finish(engine)
    for job, expected in zip(jobs, alone, strict=True):
        made = ended[job.id]
        assert isinstance(made, RenderedJob)
        assert [image.index for image in made.images] == list(range(job.count))
        for image, picture in zip(made.images, expected, strict=True):
            assert image.pixels.shape == (job.recipe.height, job.recipe.width, 3)
            assert psnr(image.pixels, picture) >= NEAR_DB
        assert made.gpu_s > 0


def test_unet_images_at_different_steps_share_a_pass(models: SmallModels) -> None:
    engine = models.engine("tiny-sd15")
    first = models.job("tiny-sd15", steps=6, seed=1, sampler="dpm++-2m")
    second = models.job("tiny-sd15", steps=3, seed=2, sampler="euler-ancestral", prompt="a lamp")
    expected = [pictures(models.engine("tiny-sd15", max_images=1), job)[0] for job in (first, second)]
    engine.add(first)
    engine.step()
    engine.step()
    engine.add(second)
    ended = finish(engine)
    for job, picture in zip((first, second), expected, strict=True):
        made = ended[job.id]
        assert isinstance(made, RenderedJob)
        assert psnr(made.images[0].pixels, picture) >= NEAR_DB
    shared = ended[second.id].images[0].facts["step_shapes"]  # type: ignore[union-attr]
    assert [(line["images"], line["entries"], line["slot"], line["steps"]) for line in shared] == [(2, 4, 1, [0, 2])]


def test_same_company_gives_the_same_bits(models: SmallModels) -> None:
    """The shape of the passes determines the bits, not the content of the other images."""
    made = []
    for neighbour in ("a lamp", "a desk"):
        engine = models.engine("tiny-z-image")
        job = models.job("tiny-z-image", seed=11)
        engine.add(models.job("tiny-z-image", prompt=neighbour, seed=12))
        engine.add(job)
        ended = finish(engine)[job.id]
        assert isinstance(ended, RenderedJob)
        made.append(ended.images[0])
    assert np.array_equal(made[0].pixels, made[1].pixels)
    assert made[0].facts["step_shapes"] == made[1].facts["step_shapes"]


def test_dropping_a_job_leaves_its_neighbours_alone(models: SmallModels, alone: list[list[np.ndarray]]) -> None:
    engine = models.engine("tiny-z-image")
    kept, dropped = (models.job("tiny-z-image", **asked) for asked in (MIXED[0], MIXED[1]))
    engine.add(kept)
    engine.add(dropped)
    engine.step()
    assert engine.drop(dropped.id)
    assert not engine.drop(dropped.id)
    ended = finish(engine)
    assert list(ended) == [kept.id]
    made = ended[kept.id]
    assert isinstance(made, RenderedJob)
    assert psnr(made.images[0].pixels, alone[0][0]) >= NEAR_DB


def test_room_key_and_progress(models: SmallModels) -> None:
    engine = models.engine("tiny-z-image", max_images=4)
    assert (engine.compat_key, engine.room, engine.jobs) == (None, 4, [])
    assert engine.step().progress == {}
    job = models.job("tiny-z-image", count=3, steps=2)
    engine.add(job)
    assert (engine.compat_key, engine.room, engine.jobs) == (job.compat_key, 1, [job.id])
    with pytest.raises(ValueError, match="already"):
        engine.add(job)
    with pytest.raises(ValueError, match="cannot join"):
        engine.add(models.job("tiny-sd15"))
    assert engine.step().progress == {job.id: (1, 2)}
    assert engine.step().progress == {job.id: (2, 2)}
    assert (engine.room, engine.jobs) == (4, [job.id]), "two of its images still wait for the decoder"
    assert list(finish(engine)) == [job.id]
    assert (engine.compat_key, engine.room, engine.jobs) == (None, 4, [])


def test_a_job_larger_than_the_running_set_is_made_in_parts(models: SmallModels) -> None:
    engine = models.engine("tiny-z-image", max_images=2)
    job = models.job("tiny-z-image", count=5, steps=2)
    engine.add(job)
    assert engine.room == 0
    made = finish(engine)[job.id]
    assert isinstance(made, RenderedJob)
    assert [image.seed for image in made.images] == [7, 8, 9, 10, 11]
    assert max(line["images"] for image in made.images for line in image.facts["step_shapes"]) == 2


def test_a_set_that_ends_together_is_decoded_in_parts_between_steps(models: SmallModels, alone: list[list[np.ndarray]]) -> None:
    """A new job waits for one part only. Images that wait for the decoder occupy no place, and interactive ones come first."""
    engine = models.engine("tiny-z-image", max_images=8)
    bulk = [replace(models.job("tiny-z-image", **MIXED[0]), priority_class="bulk") for _ in range(7)]
    person = replace(models.job("tiny-z-image", **MIXED[0]), priority_class="interactive")
    for job in (*bulk, person):
        engine.add(job)
    for _ in range(3):
        assert engine.step().rendered == []
        assert engine.room == 0
    newcomer = models.job("tiny-z-image", **MIXED[3])
    ended = [[item.job.id for item in engine.step().rendered]]
    assert (engine.room, engine.compat_key) == (8, newcomer.compat_key)
    engine.add(newcomer)
    made: dict[str, Any] = {}
    for step in range(1, 7):
        report = engine.step()
        made |= {item.job.id: item for item in report.rendered}
        ended.append([item.job.id for item in report.rendered])
        assert report.progress.get(newcomer.id) == ((step, 6) if step < 6 else None)
    ids = [job.id for job in bulk]
    assert ended == [[ids[0], person.id], ids[1:3], ids[3:5], ids[5:], [], [], [newcomer.id]]
    assert engine.jobs == []
    assert psnr(made[newcomer.id].images[0].pixels, alone[3][0]) >= NEAR_DB
    assert [made[job.id].images[0].facts["decode"]["images"] for job in bulk[1:]] == [2] * 6


def test_a_job_that_waits_for_the_decoder_can_be_dropped(models: SmallModels) -> None:
    engine = models.engine("tiny-z-image", max_images=4)
    jobs = [models.job("tiny-z-image", **MIXED[2]) for _ in range(3)]
    for job in jobs:
        engine.add(job)
    for _ in range(3):
        report = engine.step()
    assert [item.job.id for item in report.rendered] == [jobs[0].id]
    assert engine.drop(jobs[1].id)
    assert [item.job.id for item in engine.step().rendered] == [jobs[2].id]
    assert engine.jobs == []


def test_no_more_than_one_set_waits_for_the_decoder(models: SmallModels) -> None:
    """A model of few steps ends more at each than a part: then as many are decoded as came."""
    engine = models.engine("tiny-z-image", max_images=4)
    waiting = []
    for _ in range(5):
        while engine.room:
            engine.add(models.job("tiny-z-image", prompt="a red mug", width=64, height=64, steps=1))
        report = engine.step()
        waiting.append(len(engine.jobs))
        ended = len(report.rendered)
    assert waiting == [3, 4, 4, 4, 4]
    assert ended == 4


def test_a_prompt_that_cannot_be_encoded_fails_only_its_job(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = models.fresh("tiny-z-image")
    engine = StepEngine(pipeline, max_images=4)
    encode = pipeline.family.encode

    def broken(text: str) -> Any:
        if "break" in text:
            raise ValueError("no such token")
        return encode(text)

    monkeypatch.setattr(pipeline.family, "encode", broken)
    good = models.job("tiny-z-image")
    engine.add(good)
    with pytest.raises(Exception, match="no such token") as caught:
        engine.add(models.job("tiny-z-image", prompt="break it"))
    assert getattr(caught.value, "code", "") == "render_error"
    assert engine.jobs == [good.id]
    assert not any(isinstance(item, FailedJob) for item in finish(engine).values())


def test_an_init_image_must_come_with_its_job(models: SmallModels) -> None:
    engine = models.engine("tiny-z-image")
    job = models.job("tiny-z-image", init_image="asset_" + "0" * 26)
    for photo in (None, np.zeros((32, 64, 3), dtype=np.uint8)):
        with pytest.raises(AttemptFailed) as caught:
            engine.add(job, Inputs(photo))
        assert caught.value.failure.kind is FailureClass.INPUT
        assert "init_image: 64x64 pixels" in caught.value.detail
    assert engine.jobs == []


def test_steps_that_a_sampler_cannot_take_are_the_callers_fault(models: SmallModels) -> None:
    engine = models.engine("tiny-sd15")
    job = models.job("tiny-sd15", sampler="lcm")
    job = replace(job, recipe=job.recipe.model_copy(update={"steps": 60}))  # LCM was distilled from 50
    with pytest.raises(AttemptFailed) as caught:
        engine.add(job)
    assert caught.value.failure.kind is FailureClass.INPUT
    assert "sampler lcm cannot take" in caught.value.detail


def test_a_prompt_longer_than_the_model_reads_is_said(models: SmallModels) -> None:
    for model, words, cut in (
        ("tiny-sd15", 10, False),
        ("tiny-sd15", 60, True),
        ("tiny-z-image", 60, False),
        ("tiny-z-image", 400, True),
    ):
        engine = models.engine(model)
        job = models.job(model, prompt="ab " * words, steps=1)
        engine.add(job)
        made = finish(engine)[job.id]
        assert isinstance(made, RenderedJob)
        assert made.images[0].warnings == (["prompt_cut"] if cut else [])


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([96, 96, 320], [[320], [96, 96]]),
        ([100, 90, 80, 70], [[100, 90, 80, 70]]),
        ([100, 60], [[100, 60]]),
        ([100, 40], [[100], [40]]),
        ([64] * 10, [[64] * 8, [64] * 2]),
        ([], []),
    ],
)
def test_grouping_wastes_less_than_a_quarter(lengths: list[int], expected: list[list[int]]) -> None:
    passes = group(lengths, key=lambda _: None, tokens=lambda length: length, cap=lambda _: 8)
    assert passes == expected
    for members in passes:
        assert 1 - sum(members) / (len(members) * max(members)) < 0.25


def test_grouping_keeps_unlike_keys_apart() -> None:
    assert group([3, 4, 5, 6], key=lambda item: item % 2, tokens=lambda _: 1, cap=lambda _: 8) == [[3, 5], [4, 6]]
