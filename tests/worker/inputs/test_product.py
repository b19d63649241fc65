"""Product mode on a plain background: every opaque pixel is the photo's; edges, shadow and white backgrounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from imagefarm.errors import RenderError
from imagefarm.recipe import Subject
from worker.inputs.cutout import Cutout, cut_out, reached_from_border
from worker.inputs.scene import Placed, placed

ASSET = "asset_" + "0" * 26
BLUE = (40, 60, 200)


def photo(background: tuple[int, int, int] | None = None, size: int = 60) -> Image.Image:
    """A product of noise with a white label, a soft edge and a hole; on a background, or cut out."""
    rgb = np.random.default_rng(5).integers(20, 200, (size, size, 3), dtype=np.uint8)
    rgb[24:32, 20:34] = 255
    shape = Image.new("L", (size * 4, size * 4), 0)
    ImageDraw.Draw(shape).rounded_rectangle((40, 30, 190, 210), 30, fill=255)
    alpha = shape.resize((size, size), Image.Resampling.BOX)
    cut = Image.fromarray(rgb).convert("RGBA")
    cut.putalpha(alpha)
    if background is None:
        return cut
    whole = Image.new("RGBA", cut.size, background)
    whole.alpha_composite(cut)
    return whole


def put(picture: Image.Image, kind: str = "alpha", *, mask: Image.Image | None = None, side: int = 96, **subject: Any) -> Placed:
    return placed(Subject(image=ASSET, mask=ASSET if mask else kind, **subject), cut_out(picture, kind, mask), side, side)


def plain(side: int = 96, colour: tuple[int, int, int] = BLUE) -> NDArray[np.uint8]:
    return np.full((side, side, 3), colour, np.uint8)


def own_pixels(scene: Placed, made: NDArray[np.uint8], enlarged: int = 1) -> tuple[Cutout, NDArray[np.uint8]]:
    cutout, left, top = scene.at(enlarged)
    rows, columns = cutout.alpha.shape
    return cutout, made[top : top + rows, left : left + columns]


@pytest.mark.parametrize("place", [{}, {"x": 0, "y": 0}, {"x": 1, "y": 1}, {"x": 0.31, "y": 0.77}])
@pytest.mark.parametrize("edge", [{"feather": 0}, {"feather": 1}, {"feather": 9.5, "shadow": 1}])
@pytest.mark.parametrize("kind", ["alpha", "white", "asset"])
def test_every_opaque_pixel_is_the_photos(kind: str, edge: dict[str, Any], place: dict[str, Any]) -> None:
    source = photo(None if kind == "alpha" else (255, 255, 255))
    mask = photo().getchannel("A") if kind == "asset" else None
    scene = put(source, kind, mask=mask, place={"scale": 1, **place}, **edge)
    made = scene.composed(plain())
    cutout, shown = own_pixels(scene, made)
    opaque = cutout.alpha == 255
    original = np.asarray(source.convert("RGB"))
    # found in the photo itself, not only in what was cut out of it
    box = np.asarray(photo().getchannel("A")) > 0
    top, left = int(np.flatnonzero(box.any(axis=1))[0]), int(np.flatnonzero(box.any(axis=0))[0])
    there = original[top : top + opaque.shape[0], left : left + opaque.shape[1]]
    assert opaque.sum() > 1500
    assert np.array_equal(shown[opaque], there[opaque])
    assert scene.facts()["opaque_pixels"] == opaque.sum()


def test_an_enlarged_picture_shows_the_photos_own_pixels() -> None:
    scene = put(photo(), place={"scale": 0.5})
    made = scene.composed(plain(192))
    cutout, shown = own_pixels(scene, made, 2)
    opaque = cutout.alpha == 255
    assert np.array_equal(cutout.colours, cut_out(photo(), "alpha", None).colours)
    assert np.array_equal(shown[opaque], cutout.colours[opaque])


def test_the_feather_is_outside_and_only_there() -> None:
    hard = Image.new("RGBA", (20, 20), (200, 30, 30, 255))
    framed = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    framed.paste(hard, (10, 10))
    scene = put(framed, feather=3, place={"scale": 1})
    made = scene.composed(plain()).astype(int)
    assert (made[38:58, 38:58] == (200, 30, 30)).all()
    row = made[48, 32:38, 0]
    assert list(row) == sorted(row)
    assert row[0] < row[-1]
    changed = (made != BLUE).any(axis=2)
    assert not changed[:35].any()
    assert changed[35:61, 35:61].sum() == changed.sum()
    # an edge that is soft already is left alone
    blurred = photo()
    blurred.putalpha(blurred.getchannel("A").filter(ImageFilter.GaussianBlur(1.5)))
    soft, bare = (put(blurred, feather=feather, place={"scale": 1}).composed(plain()) for feather in (3, 0))
    assert np.array_equal(soft, bare)


def test_the_shadow_is_on_the_ground() -> None:
    without, with_it = (put(photo(), shadow=strength).composed(plain()).astype(int) for strength in (0, 1))
    darker = (with_it < without).any(axis=2)
    assert not (with_it > without).any()
    rows = np.flatnonzero(darker.any(axis=1))
    cutout, _, top = put(photo()).at()
    bottom = top + cutout.alpha.shape[0]
    assert rows[0] > bottom - 0.4 * cutout.alpha.shape[0]
    assert rows[-1] >= bottom
    half = put(photo(), shadow=0.5).composed(plain()).astype(int)
    assert with_it.sum() < half.sum() < without.sum()


class TestWhiteBackground:
    """The mask of a photo on white."""

    def test_white_inside_stays_and_white_outside_goes(self) -> None:
        ring = Image.new("RGBA", (60, 60), (255, 255, 255, 255))
        ImageDraw.Draw(ring).ellipse((10, 10, 50, 50), outline=(180, 20, 20, 255), width=6)
        cutout = cut_out(ring, "white", None)
        middle = cutout.alpha.shape[0] // 2
        assert cutout.alpha[middle, middle] == 255
        assert tuple(cutout.colours[middle, middle]) == (255, 255, 255)
        assert cutout.alpha[0, 0] == 0

    def test_lamps_and_jpeg_leave_no_pure_white(self) -> None:
        source = np.asarray(photo((250, 249, 247)).convert("RGB")).astype(int)
        noisy = (source + np.random.default_rng(1).integers(-6, 7, source.shape)).clip(0, 255).astype(np.uint8)
        cutout = cut_out(Image.fromarray(noisy).convert("RGBA"), "white", None)
        expected = cut_out(photo(), "alpha", None)
        assert cutout.alpha.shape == expected.alpha.shape
        assert np.mean((cutout.alpha > 127) != (expected.alpha > 127)) < 0.02

    def test_no_white_fringe_is_left(self) -> None:
        shape = Image.new("L", (60, 60), 0)
        ImageDraw.Draw(shape).ellipse((10, 10, 50, 50), fill=255)
        red = Image.new("RGB", (60, 60), (170, 20, 30))
        on_white = Image.composite(red, Image.new("RGB", (60, 60), "white"), shape.filter(ImageFilter.GaussianBlur(0.6)))
        made = put(on_white.convert("RGBA"), "white", feather=0, place={"scale": 1}).composed(plain(colour=(10, 10, 10)))
        assert made[..., 1].max() < 100, "white would show as a bright green channel on the dark ground"

    def test_a_background_of_another_colour_is_refused(self) -> None:
        with pytest.raises(RenderError, match=r"subject\.mask: the photo's border is not white"):
            cut_out(photo((90, 200, 90)), "white", None)

    def test_the_flood_goes_round_corners(self) -> None:
        spiral = np.zeros((41, 41), bool)
        low, high, column, inward = 0, 40, 0, 2
        while high - low > 4:
            spiral[low, column : high + 1] = spiral[low : high + 1, high] = True
            spiral[high, low : high + 1] = spiral[low + inward : high + 1, low] = True
            low, high, column = low + inward, high - inward, low
        assert np.array_equal(reached_from_border(spiral), spiral)
        closed = np.zeros((9, 9), bool)
        closed[3:6, 3:6] = True
        assert not reached_from_border(closed).any()


def test_a_subject_is_fitted_and_never_enlarged() -> None:
    large, small = put(photo(size=60), side=48), put(photo(size=60), side=400)
    assert large.facts()["box"][3] == round(0.75 * 48)
    assert small.scale == 1
    with pytest.raises(RenderError, match=r"subject\.place\.scale: .* use 1\.0\d* at most") as caught:
        put(photo(), side=48, place={"scale": 2})
    assert caught.value.code == "input_invalid"


@pytest.mark.parametrize(
    ("source", "kind", "mask", "says"),
    [
        (photo((255, 255, 255)), "alpha", None, "no transparent pixel; use white"),
        (Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "alpha", None, "leaves nothing"),
        (Image.new("RGBA", (9, 9), "white"), "white", None, "leaves nothing"),
        (photo(), "asset", Image.new("L", (10, 10), 255), "has 10x10 pixels, the photo 60x60"),
        (photo(), "asset", Image.new("L", (60, 60), 0), "leaves nothing"),
    ],
)
def test_a_mask_that_cannot_be_is_named(source: Image.Image, kind: str, mask: Image.Image | None, says: str) -> None:
    with pytest.raises(RenderError, match=says) as caught:
        cut_out(source, kind, mask)
    assert caught.value.detail.startswith("subject.mask:")


def test_what_a_model_paints_around() -> None:
    scene = put(photo(), place={"scale": 1})
    canvas, repaint = scene.to_paint_around(4)
    cutout, left, top = scene.at()
    kept = repaint == 0
    assert kept.sum() > 500
    # only the subject's inside is kept, at least a latent away from its edge
    whole = np.zeros((96, 96), np.uint8)
    whole[top : top + cutout.alpha.shape[0], left : left + cutout.alpha.shape[1]] = cutout.alpha
    for down, right in ((4, 0), (-4, 0), (0, 4), (0, -4)):
        assert (np.roll(whole, (down, right), (0, 1))[kept] == 255).all()
    assert np.array_equal(canvas[kept], scene.composed(plain())[kept])
    assert (canvas[repaint == 255][:50] == 255).all()
