"""Optional accelerations, each with its own setting: another attention kernel, compiled blocks, the decoder's memory layout.

They change an image only in its last bits. The audit therefore records which were on, and an isolated retry of a broken image
runs without them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from imagefarm.errors import ConfigurationError
from imagefarm.logs import get_logger
from imagefarm.settings import Settings
from worker.memory.planner import Tier
from worker.models.torch_private import (
    allow_recompilations,
    discard_compiled,
    ignore_compiler_errors,
    set_attention_backend,
)

log = get_logger(__name__)

GPU = "cuda"
AUTO = "auto"
BACKEND: str | Callable[..., Any] = "inductor"
"""The backend of torch.compile."""
RECOMPILE_LIMIT = 32
"""Kinds of passes that a block is compiled for (one image or more, with a mask or without, ...); others run uncompiled."""
COMPILERS = ("g++", "clang++", "c++")


class Kernel(NamedTuple):
    """An attention kernel: diffusers' name of it, and the device and package that it needs."""

    name: str
    device: str = ""
    package: str = ""


KERNELS = {
    "native": Kernel("native"),
    "math": Kernel("_native_math"),
    "efficient": Kernel("_native_efficient", GPU),
    "cudnn": Kernel("_native_cudnn", GPU),
    "flash-varlen": Kernel("flash_varlen", GPU, "flash_attn"),
    "sage-varlen": Kernel("sage_varlen", GPU, "sageattention"),
    "xformers": Kernel("xformers", GPU, "xformers"),
}
"""The kernels that accept a mask, because images of several lengths share a pass. The other kernels of diffusers reject one, and
its `*_hub` kernels would be downloaded while a worker runs."""


@dataclass(frozen=True, slots=True)
class AccelerationSettings:
    """The requested accelerations."""

    attention: str = AUTO
    compiled: bool = False
    channels_last: bool = False

    @classmethod
    def of(cls, settings: Settings) -> AccelerationSettings:
        """The accelerations that the settings request."""
        return cls(settings.attention, settings.torch_compile, settings.vae_channels_last)

    def check(self, device: torch.device) -> None:
        """Raise ConfigurationError naming the setting and the remedy if one of them is not available on `device`."""
        kernel = KERNELS.get(self.attention)
        if kernel is not None and kernel.device and kernel.device != device.type:
            here = ", ".join([AUTO, *(name for name, each in KERNELS.items() if not each.device)])
            raise ConfigurationError(f"attention = {self.attention} needs a GPU, and this worker renders on {device}; use {here}")
        if kernel is not None and kernel.package and importlib.util.find_spec(kernel.package) is None:
            raise ConfigurationError(
                f"attention = {self.attention} needs the package {kernel.package}, which is not installed here"
            )
        if self.compiled and (missing := _why_not_compiled(device)):
            raise ConfigurationError(f"torch_compile needs {missing}; install one, or set torch_compile = false")


class Acceleration:
    """A pipeline's networks with the requested accelerations applied. `facts` records those in use."""

    def __init__(self, denoiser: Any, vae: Any, settings: AccelerationSettings, tier: Tier) -> None:
        self._denoiser = denoiser
        self.facts: dict[str, Any] = {}
        self.compiled = False
        """Whether the denoiser's blocks are compiled when they first run."""
        self._kernel = ""
        if settings.attention != AUTO:
            self._use(settings.attention)
        if settings.compiled:
            self._compile(tier)
        if settings.channels_last:
            vae.to(memory_format=torch.channels_last)
            self.facts["decoder_layout"] = "channels-last"

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Run the model as it was released, for an isolated retry: not compiled, with the default attention kernel."""
        if not self.facts:
            yield
            return
        with torch.compiler.set_stance("force_eager"):
            if self._kernel:
                set_attention_backend(self._denoiser, KERNELS["native"].name)
            try:
                yield
            finally:
                if self._kernel:
                    set_attention_backend(self._denoiser, self._kernel)

    def has_compiled(self) -> None:
        """Note that the compiler works here. If it fails in a later pass, that pass runs uncompiled."""
        ignore_compiler_errors()

    def give_up_compiling(self, error: Exception) -> None:
        """Continue without compiling after the compiler failed with `error`."""
        log.warning("compile.failed", error=" ".join(str(error).split())[:300])
        discard_compiled(self._denoiser)
        self.compiled = False
        self.facts["compiled"] = f"no: {type(error).__name__}"

    def _use(self, attention: str) -> None:
        name = KERNELS[attention].name
        if set_attention_backend(self._denoiser, name):
            self._kernel = name
            self.facts["attention"] = attention
        else:  # UNets call PyTorch's attention directly
            self.facts["attention"] = f"PyTorch's own: {type(self._denoiser).__name__} takes no other"

    def _compile(self, tier: Tier) -> None:
        if tier is not Tier.RESIDENT:
            # torch.compile would compile hooks that cast or move weights into every block, or break the block into pieces
            self.facts["compiled"] = f"no: at tier {tier} hooks handle the weights"
            return
        allow_recompilations(RECOMPILE_LIMIT)
        # shapes are dynamic: another size or number of images needs no new compilation
        self._denoiser.compile_repeated_blocks(backend=BACKEND, dynamic=True)
        self.compiled = True
        self.facts["compiled"] = "blocks"


def _why_not_compiled(device: torch.device) -> str:
    match device.type:
        case "cuda":
            return "" if importlib.util.find_spec("triton") else "the package triton on a GPU"
        case "cpu":
            named = os.environ.get("CXX", "")
            return "" if any(map(shutil.which, (named, *COMPILERS) if named else COMPILERS)) else "a C++ compiler on a CPU"
    return f"a GPU or a CPU (this worker renders on {device})"
