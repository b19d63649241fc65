"""The share of a LoRA file's weights that fit into the model. The loaders skip the others without an error."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from worker.weights.headers import tensor_shapes

UP = re.compile(r"\.lora_B\.|[._]lora[._]up\.|\.lora_linear_layer\.up\.|_lora\.up\.|\.lora_up\.")
"""The second matrix of a layer's pair. Where a loader splits a layer in three it is cut, while the first is copied."""
BESIDE = re.compile(
    r"\.lora_A\.|[._]lora[._]down\.|\.lora_linear_layer\.down\.|_lora\.down\.|\.lora_down\.|\.alpha$|network_alpha|dora_scale"
    r"|lora_magnitude_vector"
)
"""Weights that belong to a pair whose second matrix is counted."""


def placed_share(pipe: Any, adapter: str, file: Path) -> float:
    """The share of the file's weights that act in the pipeline under this adapter's name, from 0 to 1."""
    held = _held(tensor_shapes(file))
    placed = sum(
        layers[adapter].weight.numel()
        for component in pipe.components.values()
        if hasattr(component, "modules")
        for module in component.modules()
        for layers in (getattr(module, "lora_B", None),)
        if layers is not None and adapter in layers
    )
    return 1.0 if placed >= held else math.floor(1000 * placed / held) / 1000


def _held(shapes: dict[str, list[int]]) -> int:
    """Numbers in the second matrices, and in what is of another kind than a LoRA's pairs."""
    return sum(math.prod(shape) for name, shape in shapes.items() if UP.search(name) or not BESIDE.search(name))
