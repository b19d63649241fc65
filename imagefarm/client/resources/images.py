"""`farm.images`: rendered images, their files, and lookup from a file to its job. `farm.assets`: uploaded images."""

from __future__ import annotations

from pathlib import Path

from imagefarm.client.files import IMAGE_TYPES, save_file, save_url
from imagefarm.client.pages import Pages
from imagefarm.client.request import API, FileWork, Request, Steps, ask, get, given
from imagefarm.client.resource import Listing, Operation, Resource, TransportT
from imagefarm.client.schemas import Asset, AssetList, FoundImage, Image, ImageList, LookupResult, Uploaded

UPLOAD_TIMEOUT_S = 600.0
"""Seconds. The farm needs time for a ZIP of thousands of images."""


def get_image(image: Image | str) -> Steps[Image]:
    """Get an image with its whole record. Fields of the API that `Image` does not define are attributes too."""
    return ask(Image, get(f"/images/{image if isinstance(image, str) else image.id}"))


def list_images(*, sha256: str | None = None, pixel_sha256: str | None = None) -> Pages[FoundImage]:
    """List images, newest first; with the SHA-256 of a file or of pixels, only images with that hash."""
    return Pages(path="/images", kind=ImageList, query=given({"sha256": sha256, "pixel_sha256": pixel_sha256}))


def save_image(image: Image, path: Path | str) -> Steps[Path]:
    """Write an image's file to `path`, whole or not at all."""
    return save_url(image.url, path)


def look_up_image(file: Path | str) -> Steps[LookupResult]:
    """Find the job that rendered an image, from its file alone."""
    content = yield FileWork(Path(file).read_bytes)
    headers = {"Content-Type": "application/octet-stream"}
    return (yield from ask(LookupResult, Request(method="POST", path=f"{API}/images/lookup", content=content, headers=headers)))


class Images(Resource[TransportT]):
    """`farm.images`."""

    get = Operation(get_image)
    list = Listing(list_images)
    save = Operation(save_image)
    lookup = Operation(look_up_image)


def upload_asset(picture: Path | str, *, name: str | None = None) -> Steps[str]:
    """Upload an image and return its id, for `init_image`, `mask` and `subject`. The same file always has the same id."""
    path = Path(picture)
    # the farm detects the format from the bytes, so a wrong suffix does not matter
    headers = {"Content-Type": IMAGE_TYPES.get(path.suffix.lower(), "image/png")}
    content = yield FileWork(path.read_bytes)
    params = {"name": name or path.name}
    response = yield Request(method="POST", path=f"{API}/assets", params=params, content=content, headers=headers)
    return str(response["items"][0]["id"])


def upload_asset_zip(archive: Path | str) -> Steps[Uploaded]:
    """Upload a ZIP of images; each path in it is an image's name. Files that are not images are reported, not stored."""
    content = yield FileWork(Path(archive).read_bytes)
    headers = {"Content-Type": "application/zip"}
    request = Request(method="POST", path=f"{API}/assets", content=content, headers=headers, timeout_s=UPLOAD_TIMEOUT_S)
    return (yield from ask(Uploaded, request))


def get_asset(asset_id: str) -> Steps[Asset]:
    """Get an asset's record."""
    return ask(Asset, get(f"/assets/{asset_id}"))


def list_assets(*, name: str | None = None) -> Pages[Asset]:
    """List assets, newest first; with `name`, only assets with that name."""
    return Pages(path="/assets", kind=AssetList, query=given({"name": name}))


def save_asset(asset_id: str, path: Path | str) -> Steps[Path]:
    """Write an asset's file to `path`, whole or not at all."""
    return save_file(f"/assets/{asset_id}/file", path)


class Assets(Resource[TransportT]):
    """`farm.assets`."""

    upload = Operation(upload_asset)
    upload_zip = Operation(upload_asset_zip)
    get = Operation(get_asset)
    list = Listing(list_assets)
    save = Operation(save_asset)
