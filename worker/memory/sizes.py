"""A model's sizes for the planner: from the headers of its files, otherwise from published parameter counts."""

from __future__ import annotations

from imagefarm.catalogue import Catalogue
from imagefarm.errors import ConfigurationError, RenderError
from imagefarm.model_entry import ModelEntry
from worker.memory.parameter_counts import KEPT_WIDE, PARAMETERS
from worker.memory.planner import ACTIVATIONS, ModelSize
from worker.weights.model_files import find_files

USUAL_SIZES = ((512, 512), (768, 768), (1024, 1024), (1536, 1536), (2048, 2048))
DENOISERS = frozenset({"transformer", "unet"})
ENCODERS = frozenset({"text_encoder", "text_encoder_2", "siglip"})


def model_size(entry: ModelEntry, catalogue: Catalogue, *, width: int = 2) -> tuple[ModelSize, str]:
    """The sizes of a model, and their source. `width` is the bytes of a parameter that is not quantised.

    Raises ConfigurationError if they are not known.
    """
    kept: dict[str, int] = {}
    try:
        files = find_files(entry, catalogue)
    except RenderError as error:
        if entry.source not in PARAMETERS:
            raise ConfigurationError(f"{error.detail}; nor is its size known without its files") from None
        parameters, origin = PARAMETERS[entry.source], "published parameter counts"
        kept = {"text_encoder": KEPT_WIDE.get(entry.source, 0)}
    else:
        parameters = {name: sum(file.parameters for file in files.of_component(name)) for name in files.components}
        kept = {name: sum(file.kept_wide for file in files.of_component(name)) for name in files.components}
        if files.lone_file is not None:
            parameters["transformer"] = files.weights[files.lone_file.name].parameters
        origin = f"the files in {files.lone_file or files.folder}"
    activations = ACTIVATIONS[entry.family]
    is_guided = entry.defaults.guidance > (0 if entry.family.startswith("z-image") else 1)
    size = ModelSize(
        denoiser=sum(parameters.get(name, 0) for name in DENOISERS),
        encoders=sum(parameters.get(name, 0) for name in ENCODERS),
        vae=parameters.get("vae", 0),
        width=width,
        denoiser_kept_wide=sum(kept.get(name, 0) for name in DENOISERS),
        encoders_kept_wide=sum(kept.get(name, 0) for name in ENCODERS),
        blocks=activations.blocks,
        activation_bytes=activations.guided if is_guided else activations.unguided,
    )
    return size, origin


def shapes_of(entry: ModelEntry) -> list[tuple[int, int]]:
    """The model's default size, then the usual ones within its limits."""
    limits, default = entry.limits, (entry.defaults.width, entry.defaults.height)
    usual = [
        size
        for size in USUAL_SIZES
        if limits.min_side <= size[0] <= limits.max_side
        and size[0] * size[1] <= limits.max_pixels
        and (not limits.sizes or size in limits.sizes)
    ]
    return [default, *(size for size in usual if size != default)]
