"""Plans every memory tier of a model on a device: whether it fits, how many images run at once, and its cost. A pure function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

GIB = 2**30
KIB = 2**10
CONTEXT_BYTES = GIB // 2
"""Bytes that a process takes on a GPU before it allocates a tensor."""
USABLE = 0.95
"""Share of the device's memory that tensors can fill before fragmentation stops them."""
PCIE_BYTES_PER_S = 12e9
"""Bytes per second of a usual PCIe 4.0 card; half as much on older boards, twice on newer ones."""
NOTHING: Mapping[Any, str] = MappingProxyType({})
STREAMED_BLOCKS = 4
"""Denoiser blocks on the device at once under group offload: the running one and those being copied in and out."""


class Weights(StrEnum):
    """How the denoiser and the text encoder are stored. The decoder always keeps its width."""

    FULL = "full"
    INT8 = "int8"
    FP8 = "fp8"
    NF4 = "nf4"


class OffloadMode(StrEnum):
    """Where unused weights are."""

    RESIDENT = "resident"
    """On the device."""
    ENCODER_SWAPPED = "encoder-swapped"
    """Text encoder and denoiser swap: the encoder is moved in for prompts that are not cached."""
    BLOCKS = "blocks"
    """In host memory. A few blocks are on the device at a time; the next is copied while one runs."""
    LAYERS = "layers"
    """In host memory, copied layer by layer."""


class Tier(StrEnum):
    """Memory tiers, the fastest first."""

    RESIDENT = "resident"
    ENCODER_SWAPPED = "encoder-swapped"
    INT8 = "int8"
    FP8 = "fp8"
    INT8_ENCODER_SWAPPED = "int8-encoder-swapped"
    FP8_ENCODER_SWAPPED = "fp8-encoder-swapped"
    NF4 = "nf4"
    NF4_ENCODER_SWAPPED = "nf4-encoder-swapped"
    GROUP_OFFLOAD = "group-offload"
    SEQUENTIAL = "sequential"

    @property
    def weights(self) -> Weights:
        """How the weights are stored."""
        first = self.value.split("-")[0]
        return Weights(first) if first in set(Weights) else Weights.FULL

    @property
    def offload_mode(self) -> OffloadMode:
        """Where unused weights are."""
        if self is Tier.GROUP_OFFLOAD:
            return OffloadMode.BLOCKS
        if self is Tier.SEQUENTIAL:
            return OffloadMode.LAYERS
        return OffloadMode.ENCODER_SWAPPED if self.value.endswith("encoder-swapped") else OffloadMode.RESIDENT


STREAMED = frozenset({OffloadMode.BLOCKS, OffloadMode.LAYERS})
FIDELITY = {
    Weights.FULL: "none: the model as released",
    Weights.INT8: "small: rounding of the weights, 39 dB or more against full weights on test models",
    Weights.FP8: "some: coarser rounding of the weights, 33 dB or more against full weights on test models",
    Weights.NF4: "the largest: 4-bit weights, 26 dB against full weights on one tiny test model",
}
STORED_BYTES = {Weights.INT8: 1.0, Weights.FP8: 1.0, Weights.NF4: 0.5625}
"""Bytes of one stored parameter, including the scales of NF4's blocks of 64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """What the planner needs to know of a model: parameters, and what a pass needs beyond them."""

    denoiser: int
    encoders: int
    vae: int
    width: int = 2
    """Bytes of a parameter that is not quantised: 2, or 4 on a device that computes in float32."""
    denoiser_kept_wide: int = 0
    encoders_kept_wide: int = 0
    """Parameters that keep their width when the rest is quantised: embedding tables, convolutions, norms."""
    largest_layer: int = 0
    """Parameters of the largest single layer; 0 stands for a hundredth of the denoiser."""
    blocks: int = 30
    """Blocks that the denoiser is streamed in."""
    activation_bytes: float
    """Bytes of a denoiser pass per output pixel of one image, guidance included. An estimate until it is measured."""
    decode_bytes: float = 1.5 * GIB / 1024**2
    """Bytes of a decoder pass per output pixel of one image."""
    tiled_decode_bytes: float = 0.5 * GIB
    """Bytes of a tiled decode, for any image size."""


@dataclass(frozen=True, slots=True)
class FamilyActivations:
    """What a pass of a family needs beyond weights, per output pixel of an image; estimated from layer widths at 16 bits."""

    unguided: float
    guided: float
    blocks: int


ACTIVATIONS: Mapping[str, FamilyActivations] = {
    # a token covers 16 x 16 pixels and holds about 100 KiB at the widest point of a block (3 x 10240 + 6 x 3840 numbers)
    "z-image": FamilyActivations(100 * KIB / 256, 200 * KIB / 256, 30),
    # condition images double the tokens
    "z-image-omni": FamilyActivations(200 * KIB / 256, 400 * KIB / 256, 30),
    # a latent covers 8 x 8 pixels; the widest point is the first and last block, 320 channels with their skip connections
    "sd15": FamilyActivations(64 * KIB / 64, 128 * KIB / 64, 16),
    "sdxl": FamilyActivations(40 * KIB / 64, 80 * KIB / 64, 11),
}


@dataclass(frozen=True, slots=True)
class Fit:
    """How many images of one size run at once; 0 where not even one does."""

    width: int
    height: int
    images: int
    tiled: bool
    """Whether the decoder must use tiles, which changes the image slightly."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One tier's plan for running the model on the device."""

    tier: Tier
    weight_bytes: int
    """Bytes on the device at the peak."""
    host_bytes: int
    """Bytes in host memory besides."""
    fits: tuple[Fit, ...]
    fidelity: str
    speed: str
    unavailable_reason: str = ""
    """Why this tier is unavailable here, with the remedy; empty if it is available."""

    @property
    def is_feasible(self) -> bool:
        """Whether the first size, the model's default, runs."""
        return not self.unavailable_reason and bool(self.fits) and self.fits[0].images > 0


def plan(
    size: ModelSize,
    vram_bytes: int,
    shapes: Sequence[tuple[int, int]],
    *,
    max_images: int = 16,
    unavailable: Mapping[Tier, str] = NOTHING,
    context_bytes: int = CONTEXT_BYTES,
    tiled: bool = False,
) -> list[Plan]:
    """Return the plan of every tier, the fastest first, for a device with `vram_bytes` free. `shapes[0]` is the default size.

    `unavailable` maps unavailable tiers to reasons. `context_bytes` is what the process will still take besides tensors. `tiled`
    says that the decoder always uses tiles. Take the first feasible plan: see `best`.
    """
    free = int(vram_bytes * USABLE) - context_bytes
    plans = []
    for tier in Tier:
        weights, stored = weight_bytes(size, tier), _stored(size, tier.weights)
        # swapped weights move as a whole; streamed weights stay in host memory
        host = 0 if tier.offload_mode is OffloadMode.RESIDENT else sum(stored[:2])
        fits = tuple(_fit(size, free - weights, shape, max_images, tiled=tiled) for shape in shapes)
        plans.append(Plan(tier, weights, host, fits, FIDELITY[tier.weights], _speed(tier, size), unavailable.get(tier, "")))
    return plans


def best(plans: Sequence[Plan]) -> Plan | None:
    """The first plan under which the model's default size runs, or None."""
    return next((candidate for candidate in plans if candidate.is_feasible), None)


def weight_bytes(size: ModelSize, tier: Tier) -> int:
    """Bytes of weights on the device at the peak of a tier."""
    denoiser, encoders, vae = _stored(size, tier.weights)
    match tier.offload_mode:
        case OffloadMode.RESIDENT:
            return denoiser + encoders + vae
        case OffloadMode.ENCODER_SWAPPED:
            return max(denoiser, encoders) + vae
        case OffloadMode.BLOCKS:
            return min(denoiser, STREAMED_BLOCKS * denoiser // size.blocks) + vae
        case OffloadMode.LAYERS:
            return (size.largest_layer or size.denoiser // 100) * size.width + vae


def _stored(size: ModelSize, weights: Weights) -> tuple[int, int, int]:
    """Bytes of denoiser, encoders and decoder wherever they are."""
    narrow = STORED_BYTES.get(weights, size.width)
    return (
        int((size.denoiser - size.denoiser_kept_wide) * narrow) + size.denoiser_kept_wide * size.width,
        int((size.encoders - size.encoders_kept_wide) * narrow) + size.encoders_kept_wide * size.width,
        size.vae * size.width,
    )


def _fit(size: ModelSize, free: int, shape: tuple[int, int], max_images: int, *, tiled: bool) -> Fit:
    width, height = shape
    pixels, wide = width * height, size.width / 2
    images = min(max_images, int(free // (size.activation_bytes * pixels * wide))) if free > 0 else 0
    tiled = size.tiled_decode_bytes < size.decode_bytes * pixels if tiled else size.decode_bytes * pixels * wide > free
    if tiled and size.tiled_decode_bytes * wide > free:
        images = 0
    return Fit(width, height, images, tiled and images > 0)


def _speed(tier: Tier, size: ModelSize) -> str:
    denoiser, encoders, _ = _stored(size, tier.weights)
    match tier.offload_mode:
        case OffloadMode.RESIDENT:
            if tier.weights is Weights.FULL:
                return "full"
            return "about as fast as full weights" if tier.weights is not Weights.NF4 else "somewhat slower than full weights"
        case OffloadMode.ENCODER_SWAPPED:
            moved = 2 * (denoiser + encoders)
            return (
                f"new prompts move {moved / GIB:.1f} GiB, as many as wait at once share it: about"
                f" {moved / PCIE_BYTES_PER_S:.1f} s; cached prompts cost nothing"
            )
        case OffloadMode.BLOCKS:
            seconds = denoiser / PCIE_BYTES_PER_S
            return f"each step moves {denoiser / GIB:.1f} GiB: at least {seconds:.1f} s a step, shared by all images in it"
        case OffloadMode.LAYERS:
            return "several times slower than group-offload: every layer waits for its weights"
