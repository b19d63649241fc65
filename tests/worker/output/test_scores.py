"""Scores of the quality gate, and channel files."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from imagefarm.errors import ConfigurationError, InvalidRequest
from imagefarm.imaging.channels import Channel, presets, resolve
from imagefarm.recipe import Subject
from scheduler.batches.table.quality_gate import distance
from worker.inputs.cutout import cut_out
from worker.inputs.scene import placed
from worker.output.channels import crop_box, fit, make_channel
from worker.output.scores import measure, own_share

Pixels = NDArray[np.uint8]


def noise(side: int = 128, seed: int = 3) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def gradient(side: int = 128) -> Pixels:
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    return np.repeat(np.repeat(ramp[None, :, None], side, 0), 3, 2)


def blurred(pixels: Pixels, radius: float) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def test_scores_say_what_they_are_called() -> None:
    sharp, soft = measure(noise()), measure(blurred(noise(), 2))
    assert sharp["sharpness"] > 10 * soft["sharpness"] > 0
    values = np.asarray(Image.fromarray(noise()).convert("L"), float)
    expected = np.array(
        [
            values[y - 1, x] + values[y + 1, x] + values[y, x - 1] + values[y, x + 1] - 4 * values[y, x]
            for y in range(1, 127)
            for x in range(1, 127)
        ]
    ).var()
    assert sharp["sharpness"] == pytest.approx(expected, rel=1e-4)
    assert (sharp["exposure"], sharp["contrast"]) == (
        pytest.approx(values.mean() / 255, abs=1e-4),
        pytest.approx(values.std(), abs=1e-2),
    )
    blank = measure(np.full((64, 64, 3), 255, np.uint8))
    assert (blank["sharpness"], blank["exposure"], blank["contrast"], blank["subject"]) == (0, 1, 0, None)
    assert measure(gradient())["dhash"] == "f" * 16


def test_alike_pictures_have_alike_hashes() -> None:
    smooth = np.asarray(Image.fromarray(noise(8, 1)).resize((256, 256), Image.Resampling.BICUBIC))
    other = np.asarray(Image.fromarray(noise(8, 2)).resize((256, 256), Image.Resampling.BICUBIC))
    one = measure(smooth)["dhash"]
    assert distance(one, measure(blurred(smooth, 3))["dhash"]) <= 3
    assert distance(one, measure(np.clip(smooth.astype(int) + 9, 0, 255).astype(np.uint8))["dhash"]) <= 3
    assert distance(one, measure(other)["dhash"]) > 12


def test_a_large_picture_is_measured_as_a_small_one() -> None:
    small = blurred(noise(512), 1)
    large = np.asarray(Image.fromarray(small).resize((2048, 2048), Image.Resampling.NEAREST))
    assert measure(large)["sharpness"] == pytest.approx(measure(small)["sharpness"], rel=0.05)


def test_the_subjects_own_pixels_are_counted() -> None:
    cut = SimpleNamespace(colours=noise(10), alpha=np.full((10, 10), 255, np.uint8))
    cut.alpha[0] = 90  # an edge is mixed and does not count
    placed: Any = SimpleNamespace(width=64, at=lambda enlarged: (cut, 7, 5))
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[5:15, 7:17] = cut.colours
    picture[5] = 0
    assert own_share(picture, placed) == 1.0
    picture[14, 7:12] += 1
    assert own_share(picture, placed) == pytest.approx(85 / 90)


def test_product_mode_keeps_the_subjects_pixels() -> None:
    photo = np.zeros((64, 64, 4), np.uint8)
    photo[14:54, 14:50] = np.dstack([noise(64)[:40, :36], np.full((40, 36), 255, np.uint8)])
    subject = Subject.model_validate({"image": "asset_" + "0" * 26, "shadow": 0.5})
    inside = placed(subject, cut_out(Image.fromarray(photo), "alpha", None), 128, 128)
    made = inside.composed(noise(256, 9))  # enlarged, as after an upscaler
    assert measure(made, inside)["subject"] == 1.0
    assert measure(blurred(made, 1), inside)["subject"] < 0.1


def channel(**fields: Any) -> Channel:
    return Channel.model_validate({"name": "x", "width": 60, "height": 40} | fields)


def test_padding_keeps_the_whole_picture() -> None:
    made = fit(np.zeros((50, 50, 3), np.uint8), channel(background="#ff8000", margin=0.1))
    assert made.shape == (40, 60, 3)
    assert (made[0, 0] == (255, 128, 0)).all()
    inside = (made == 0).all(axis=2)
    assert (np.flatnonzero(inside.any(axis=0))[[0, -1]] == (14, 45)).all()
    assert (np.flatnonzero(inside.any(axis=1))[[0, -1]] == (4, 35)).all()


def test_a_crop_keeps_the_subject_in_the_middle_as_far_as_it_can() -> None:
    assert crop_box((100, 100), (50, 100), (0.5, 0.5)) == (25, 0, 75, 100)
    assert crop_box((100, 100), (50, 100), (0.95, 0.5)) == (50, 0, 100, 100)
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[:, 80:90] = 255
    tall = channel(width=20, height=40, fit="crop", focus="subject")
    assert fit(picture, tall, (80, 0, 10, 100)).max() == 255
    assert fit(picture, tall).max() < 9
    assert fit(picture, channel(width=20, height=40, fit="crop"), (80, 0, 10, 100)).max() < 9


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_a_limit_of_bytes_is_kept_at_the_best_quality(form: str) -> None:
    wanted = channel(width=200, height=200, format=form, quality=95, max_bytes=20_000)
    made = make_channel(noise(200), wanted, {})
    assert made.fits
    assert made.quality is not None
    assert 1 < made.quality < 95
    better = channel(width=200, height=200, format=form, quality=made.quality + 1)
    assert len(make_channel(noise(200), better, {}).data) > 20_000
    assert Image.open(io.BytesIO(made.data)).size == (200, 200)
    hopeless = make_channel(noise(1024), channel(width=1024, height=1024, format=form, max_bytes=2048), {})
    assert (hopeless.fits, hopeless.quality) == (False, 1)
    easy = make_channel(np.zeros((64, 64, 3), np.uint8), channel(format=form, max_bytes=20_000), {})
    assert easy.quality == 90


def test_a_farms_own_channels_win(tmp_path: Any) -> None:
    own = tmp_path / "channels.toml"
    own.write_text('[shop]\nwidth = 300\nheight = 400\n[web]\nwidth = 500\nheight = 500\nformat = "webp"\n')
    known = presets(own)
    assert (known["shop"].height, known["web"].width, known["square"].width) == (400, 500, 2000)
    assert [each.name for each in resolve(["shop", channel()], known)] == ["shop", "x"]
    with pytest.raises(InvalidRequest, match="no channel 'hop'"):
        resolve(["hop"], known)
    for text in ("[a]\nwidth = 3\nheight = 3\n", "a = 1\n", "[A]\nwidth = 64\nheight = 64\n", "["):
        own.write_text(text)
        with pytest.raises(ConfigurationError, match=str(own)):
            presets(own)
