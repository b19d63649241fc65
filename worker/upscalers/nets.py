"""The catalogue's upscalers: loaded from safetensors files of known architectures; a few stay in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

from imagefarm.catalogue import Catalogue
from imagefarm.errors import RenderError
from worker.memory.weights import module_bytes
from worker.weights.digests import WeightDigests
from worker.weights.headers import read_header

ARCHITECTURES = {"ESRGAN": "ESRGAN", "Compact": "Compact", "SPAN": "SPAN", "SwinIR": "SwinIR"}
"""Architectures that may be loaded, by spandrel's id."""
SIDE, OVERLAP = 256, 16
"""Overlap of a tile, in pixels of the input image."""
WIDE_SIDE, WIDE_OVERLAP = 512, 48
"""Overlap for networks with a wide receptive field, whose seams would show."""
KEPT = 2
"""Networks kept on the device."""


@dataclass(frozen=True, slots=True, repr=False)
class Net:
    """A loaded network."""

    name: str
    model: Any
    """spandrel's model descriptor. Calling it upscales (1, 3, H, W) in 0..1."""
    scale: int
    device: torch.device
    dtype: torch.dtype
    side: int
    overlap: int
    facts: dict[str, Any]
    """Facts for the audit."""
    bytes: int = 0
    """Bytes of the weights."""


class Upscalers:
    """Finds, checks and keeps the networks of one device."""

    def __init__(self, catalogue: Catalogue, device: torch.device, digests: WeightDigests, lock: threading.Lock) -> None:
        """`lock` is held while a library is imported or a file is loaded."""
        self._catalogue = catalogue
        self._device = device
        self._digests = digests
        self._lock = lock
        self._nets: OrderedDict[str, Net] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Bytes of the weights of all loaded networks. Any thread may call it."""
        return sum(net.bytes for net in list(self._nets.values()))

    def get(self, name: str) -> Net:
        """The network of that name. Raises RenderError: "model_invalid" with the file, or "not_supported"."""
        if name in self._nets:
            self._nets.move_to_end(name)
            return self._nets[name]
        net = self._nets[name] = self._load(name)
        while len(self._nets) > KEPT:
            self._nets.popitem(last=False)
        return net

    def _load(self, name: str) -> Net:
        entry = self._catalogue.upscalers.get(name)
        if entry is None:
            known = ", ".join(["lanczos", *self._catalogue.upscalers])
            raise RenderError("not_supported", f"upscale.model: no upscaler {name!r} here; known: {known}")
        path = self._catalogue.local_path(entry.source)
        if path is None or not path.is_file() or path.suffix != ".safetensors":
            raise _invalid(name, f"{path or entry.source} is no .safetensors file here; pickled weights are never loaded")
        read_header(path)
        digest = self._digests.of(path)
        if entry.sha256 and digest != entry.sha256:
            raise _invalid(name, f"{path} has SHA-256 {digest}, the catalogue says {entry.sha256}; fetch the file again")
        from worker.upscalers.spandrel_import import import_spandrel

        with self._lock:
            spandrel = import_spandrel()
            try:
                model = spandrel.ModelLoader(device="cpu").load_from_file(path)
            except (spandrel.UnsupportedModelError, RuntimeError, ValueError, KeyError, OSError) as error:
                raise _invalid(name, f"{path}: {' '.join(str(error).split())[:200]}") from None
        architecture = str(model.architecture.id)
        if architecture not in ARCHITECTURES or model.input_channels != 3 or model.output_channels != 3:
            raise _invalid(name, f"{path} holds a {architecture}; the farm loads {', '.join(ARCHITECTURES)} for RGB")
        if model.scale != entry.scale:
            raise _invalid(name, f"{path} enlarges {model.scale} times, the catalogue says {entry.scale}; correct `scale`")
        dtype = self._dtype(model)
        model.to(self._device, dtype).eval()
        wide = str(model.tiling).endswith("DISCOURAGED")
        return Net(
            name=name,
            model=model,
            scale=int(model.scale),
            device=self._device,
            dtype=dtype,
            side=WIDE_SIDE if wide else SIDE,
            overlap=WIDE_OVERLAP if wide else OVERLAP,
            facts={"name": name, "architecture": architecture, "sha256": digest, "scale": int(model.scale), "dtype": str(dtype)},
            bytes=module_bytes(model.model),
        )

    def _dtype(self, model: Any) -> torch.dtype:
        if self._device.type == "cpu":
            return torch.float32
        if model.supports_bfloat16 and (self._device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)):
            return torch.bfloat16
        return torch.float16 if model.supports_half else torch.float32


def _invalid(name: str, what: str) -> RenderError:
    return RenderError("model_invalid", f"upscaler {name}: {what}")
