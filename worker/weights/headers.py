"""What a safetensors file holds, from its header alone; no tensor is loaded."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from imagefarm.errors import RenderError

MAX_HEADER_BYTES = 100 * 2**20
"""The format's own limit; a larger number means that the file is not safetensors."""


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of weights."""

    path: Path
    parameters: int
    nbytes: int
    kept_wide: int
    """Parameters that 8-bit tiers do not quantise: all but the matrices of linear layers."""
    dtypes: frozenset[str]


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """The shape of each tensor of a safetensors file that `read_header` takes."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def read_header(file: Path) -> WeightFile:
    """Read the header of a safetensors file. Raises RenderError("model_invalid") for another format or a truncated file."""

    def wrong(what: str) -> RenderError:
        return RenderError("model_invalid", f"{file}: {what}; fetch the file again")

    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise wrong("not a safetensors file")
            header = json.loads(stream.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        parameters = sum(math.prod(entry["shape"]) for entry in tensors.values())
        kept_wide = sum(math.prod(entry["shape"]) for name, entry in tensors.items() if not _is_linear(name, entry["shape"]))
        dtypes = frozenset(entry["dtype"] for entry in tensors.values())
    except OSError as error:
        raise RenderError("model_invalid", f"{file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise wrong("its header cannot be read") from None
    if size != 8 + length + end:
        raise wrong(f"it should be {8 + length + end} bytes long and is {size}")
    return WeightFile(file, parameters, end, kept_wide, dtypes)


def _is_linear(name: str, shape: list[int]) -> bool:
    """By name and shape, as far as a header shows: a matrix that is not an embedding table."""
    return len(shape) == 2 and name.endswith("weight") and "embed_tokens" not in name and "embedding" not in name
