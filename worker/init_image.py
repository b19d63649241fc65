"""The picture that a recipe begins from: an asset, decoded and brought to the recipe's size."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from imagefarm.errors import RenderError
from imagefarm.outputs import Outputs
from imagefarm.picture.metadata import MAX_PIXELS
from imagefarm.recipe import Recipe
from imagefarm.store import Store
from imagefarm.store.models import Asset

if TYPE_CHECKING:
    from numpy.typing import NDArray


def load_init_image(store: Store, outputs: Outputs, recipe: Recipe, tenant_id: str) -> NDArray[np.uint8] | None:
    """Return the recipe's init image as (height, width, 3) RGB at the recipe's size, or None if it has none.

    Scaled to cover the recipe's size and cropped around the middle, turned as its EXIF says, on white where it is
    transparent. Raises RenderError("input_invalid") naming the asset; OSError if the store is away.
    """
    if recipe.init_image is None:
        return None
    with store.read() as session:
        asset = session.get(Asset, recipe.init_image)
    if asset is None or asset.tenant_id != tenant_id:
        raise RenderError("input_invalid", f"init_image: there is no asset {recipe.init_image} any more; upload it again")
    try:
        data = outputs.read(asset.storage_key)
    except FileNotFoundError:
        raise RenderError("input_invalid", f"init_image: the file of asset {asset.id} is gone; upload it again") from None
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise RenderError("input_invalid", f"init_image: asset {asset.id} has more than {MAX_PIXELS} pixels")
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RenderError("input_invalid", f"init_image: asset {asset.id} cannot be decoded: {error}") from None
    on_white = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    return np.array(ImageOps.fit(on_white, (recipe.width, recipe.height), Image.Resampling.LANCZOS))
