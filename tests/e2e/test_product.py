"""Product mode and inpainting through HTTP and a real worker: the photo's pixels arrive in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imagefarm import Client
from imagefarm.client import RequestRefusedError
from imagefarm.imaging.metadata import read_metadata


def photo_on_white() -> Image.Image:
    """A teapot of sorts, with a white label, on white."""
    photo = Image.new("RGB", (60, 60), "white")
    draw = ImageDraw.Draw(photo)
    draw.rectangle((14, 14, 44, 50), fill=(140, 60, 20))
    draw.rectangle((20, 24, 38, 34), fill="white")
    return photo


def test_a_product_photo_gets_its_surroundings(client: Client, tmp_path: Path) -> None:
    source = photo_on_white()
    source.save(tmp_path / "photo.png")
    asset = client.assets.upload(tmp_path / "photo.png")
    subject = {"image": asset, "mask": "white", "place": {"x": 0.5, "y": 0.55, "scale": 1}, "shadow": 0.6}
    job = client.jobs.wait(client.jobs.submit("a brown box on a yellow background", subject=subject, seed=2, count=2), check=True)
    made = client.images.get(job.images[0]).model_dump()["audit"]["subject"]
    assert made["tool"] == "inpaint"
    assert made["mask"] == "white"
    left, top, width, height = made["box"]
    assert (width, height, made["scale"]) == (31, 37, 1)
    photo = np.asarray(source)[14 : 14 + height, 14 : 14 + width]
    for path in client.jobs.download(job, tmp_path):
        with Image.open(path) as picture:
            shown = np.asarray(picture.convert("RGB"))
            assert b"compositeWithTrainedAlgorithmicMedia" in picture.info["XML:com.adobe.xmp"].encode()
        assert np.array_equal(shown[top : top + height, left : left + width], photo)
        corner = shown[:8, :8].reshape(-1, 3).mean(axis=0)
        assert corner[0] > corner[2] + 60, corner


def test_a_part_of_a_picture_is_painted_anew_as_jpeg(client: Client, tmp_path: Path) -> None:
    first = client.jobs.wait(client.jobs.submit("a red mug on a white background", seed=42), check=True)
    (path,) = client.jobs.download(first, tmp_path)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    Image.fromarray(((pixels[..., 0] - pixels[..., 1] < 60) * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    fields = {
        "init_image": client.assets.upload(path),
        "mask": client.assets.upload(tmp_path / "mask.png"),
        "format": "jpeg",
        "quality": 95,
    }
    job = client.jobs.wait(client.jobs.submit("a red mug on a blue background", seed=3, **fields), check=True)
    (made,) = client.jobs.download(job, tmp_path)
    assert made.suffix == ".jpg"
    with Image.open(made) as picture:
        corner = np.asarray(picture)[:8, :8].reshape(-1, 3).mean(axis=0)
    assert corner[2] > corner[0] + 60, corner
    assert read_metadata(made.read_bytes())["imagefarm"]["job"] == job.id
    assert client.images.lookup(made).found_by == "file"


def test_a_photo_that_cannot_be_cut_out_fails_with_its_remedy(client: Client, tmp_path: Path) -> None:
    photo_on_white().save(tmp_path / "photo.png")
    asset = client.assets.upload(tmp_path / "photo.png")
    job = client.jobs.wait(client.jobs.submit("a box", subject={"image": asset}))
    assert (job.state, job.error and job.error.code) == ("failed", "input_invalid")
    assert job.error is not None
    assert "use white for a white background" in job.error.detail
    with pytest.raises(RequestRefusedError, match="a subject already is the starting picture"):
        client.jobs.submit("a box", subject={"image": asset}, init_image=asset)
