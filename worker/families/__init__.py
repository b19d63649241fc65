"""Model families: the differences between pipelines, one file per family, behind one small interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagefarm.errors import RenderError

if TYPE_CHECKING:
    from worker.families.base import Family


def family_class(name: str) -> type[Family]:
    """The class for a catalogue entry's `family`. Raises RenderError("not_supported") with the missing package or class."""
    # imported here because each family imports its own diffusers pipelines
    match name:
        case "z-image":
            from worker.families.z_image import ZImage

            return ZImage
        case "z-image-omni":
            from worker.families.z_image_omni import ZImageOmni

            return ZImageOmni
        case "sd15":
            from worker.families.stable_diffusion import StableDiffusion

            return StableDiffusion
        case "sdxl":
            from worker.families.sdxl import StableDiffusionXL

            return StableDiffusionXL
    raise RenderError(
        "not_supported", f"family {name!r} has no file in worker/families that can load, encode, step and decode it"
    )
