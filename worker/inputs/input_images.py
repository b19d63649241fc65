"""Input images of a recipe: assets, decoded and scaled to the recipe's size."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from imagefarm.errors import RenderError
from imagefarm.imaging.input_image import normalised
from imagefarm.imaging.metadata import MAX_PIXELS
from imagefarm.output_store import OutputStore
from imagefarm.recipe import Recipe
from imagefarm.store import Store
from imagefarm.store.models import Asset
from worker.inputs.cutout import cut_out
from worker.inputs.scene import Placed, placed

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, repr=False)
class Inputs:
    """The inputs of a job's images besides the prompt."""

    image: NDArray[np.uint8] | None = None
    """(height, width, 3) RGB at the recipe's size."""
    mask: NDArray[np.uint8] | None = None
    """(height, width): white where the image is repainted."""
    subject: Placed | None = None
    """The subject that is composited onto the finished image."""

    def fit(self, recipe: Recipe) -> bool:
        """Whether these inputs have the shapes that the recipe needs."""
        size = (recipe.height, recipe.width)
        return (recipe.init_image is None or (self.image is not None and self.image.shape == (*size, 3))) and (
            recipe.mask is None or (self.mask is not None and self.mask.shape == size)
        )

    def beginning(self, *, can_inpaint: bool, cell: int) -> Inputs:
        """The inputs that the model starts from. A model that can inpaint paints around the subject; any other makes a background
        from the prompt alone. `cell` is the number of pixels that a latent covers.
        """
        if self.subject is None or not can_inpaint:
            return self
        image, mask = self.subject.to_paint_around(cell)
        return Inputs(image, mask, self.subject)


NOTHING = Inputs()


def load_inputs(store: Store, outputs: OutputStore, recipe: Recipe, tenant_id: str) -> Inputs:
    """Read and decode the recipe's assets.

    They are rotated by their EXIF orientation, put on white where they are transparent, scaled to cover the recipe's size and
    cropped around the centre. Raises RenderError("input_invalid") naming field and asset; OSError if the store is not reachable.
    """
    pictures = {field: _picture(store, outputs, field, asset, tenant_id) for field, asset in recipe.assets.items()}
    size = (recipe.width, recipe.height)
    image, mask = pictures.get("init_image"), pictures.get("mask")
    subject = None
    if recipe.subject is not None:
        cutout = cut_out(pictures["subject.image"], recipe.subject.mask, pictures.get("subject.mask"))
        subject = placed(recipe.subject, cutout, recipe.width, recipe.height)
    return Inputs(
        subject=subject,
        image=None if image is None else np.array(ImageOps.fit(on_white(image), size, Image.Resampling.LANCZOS)),
        mask=None if mask is None else np.array(ImageOps.fit(on_white(mask).convert("L"), size, Image.Resampling.LANCZOS)),
    )


def on_white(picture: Image.Image) -> Image.Image:
    """Convert an RGBA image to RGB on white."""
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _picture(store: Store, outputs: OutputStore, field: str, asset_id: str, tenant_id: str) -> Image.Image:
    """The asset as an upright RGBA image."""
    with store.read() as session:
        asset = session.get(Asset, asset_id)
    if asset is None or asset.tenant_id != tenant_id:
        raise RenderError("input_invalid", f"{field}: there is no asset {asset_id} any more; upload it again")
    try:
        data = outputs.read(asset.storage_key)
    except FileNotFoundError:
        raise RenderError("input_invalid", f"{field}: the file of asset {asset.id} is gone; upload it again") from None
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise RenderError("input_invalid", f"{field}: asset {asset.id} has more than {MAX_PIXELS} pixels")
            return normalised(image).image.convert("RGBA")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RenderError("input_invalid", f"{field}: asset {asset.id} cannot be decoded: {error}") from None
