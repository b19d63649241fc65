"""Which way of holding a model fits a device, how many images run there, and what it costs: a pure function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

GIB = 2**30
KIB = 2**10
CONTEXT_BYTES = GIB // 2
"""What a process takes on a GPU before it holds anything."""
USABLE = 0.95
"""Share of a device's memory that tensors can fill before fragments of it are too small for the next one."""
PCIE_BYTES_PER_S = 12e9
"""A usual PCIe 4.0 card; half as much on older boards, twice on newer."""
STREAMED_BLOCKS = 4
"""Blocks of a denoiser that are on the device at once under group offload: the one that runs and those that come and go."""


class Tier(StrEnum):
    """Ways of holding the weights, the best first."""

    RESIDENT = "resident"
    """All at 16 bits on the device."""
    ENCODER_SWAPPED = "encoder-swapped"
    """16 bits; the text encoder takes the denoiser's place on the device for each prompt that is not in the cache."""
    INT8 = "int8"
    """Denoiser and text encoder at 8 bits on the device."""
    INT8_ENCODER_SWAPPED = "int8-encoder-swapped"
    """8 bits, and the encoder comes only for prompts that are not in the cache."""
    GROUP_OFFLOAD = "group-offload"
    """16 bits in the machine's memory; a few blocks are on the device at a time, the next one comes while one runs."""
    SEQUENTIAL = "sequential"
    """16 bits in the machine's memory, layer by layer."""


FIDELITY = {
    Tier.RESIDENT: "none: the model as released",
    Tier.ENCODER_SWAPPED: "none: the same numbers, only elsewhere in between",
    Tier.INT8: "small: rounding of the weights, about 42 dB against full weights on test models",
    Tier.INT8_ENCODER_SWAPPED: "small: rounding of the weights, about 42 dB against full weights on test models",
    Tier.GROUP_OFFLOAD: "none: the same numbers, much slower",
    Tier.SEQUENTIAL: "none: the same numbers, slowest",
}
SWAPS = frozenset({Tier.ENCODER_SWAPPED, Tier.INT8_ENCODER_SWAPPED})
EIGHT_BIT = frozenset({Tier.INT8, Tier.INT8_ENCODER_SWAPPED})
STREAMED = frozenset({Tier.GROUP_OFFLOAD, Tier.SEQUENTIAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """What a planner must know of a model: parameters, and how much a pass needs besides them."""

    denoiser: int
    encoders: int
    vae: int
    encoders_kept_wide: int = 0
    """Parameters of the encoders that stay at 16 bits when they are quantised."""
    largest_layer: int = 0
    """Parameters of the largest single layer; 0: a hundredth of the denoiser."""
    blocks: int = 30
    """Blocks that a denoiser is streamed in."""
    activation_bytes: float
    """Of the denoiser, per output pixel of one image, guidance included. An estimate until it is measured."""
    decode_bytes: float = 1.5 * GIB / 1024**2
    """Of the decoder, per output pixel of one image."""
    tiled_decode_bytes: float = 0.5 * GIB
    """Of the decoder in tiles, whatever the picture's size."""


@dataclass(frozen=True, slots=True)
class FamilyActivations:
    """What a pass of a family needs besides weights, per output pixel of an image: estimates from layer widths at 16 bits."""

    unguided: float
    guided: float
    blocks: int


ACTIVATIONS: Mapping[str, FamilyActivations] = {
    # a token covers 16 x 16 pixels and holds about 100 KiB at the widest point of a block (3 x 10240 + 6 x 3840 numbers)
    "z-image": FamilyActivations(100 * KIB / 256, 200 * KIB / 256, 30),
    # images that condition the result double the tokens
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
    """Whether the decoder must work in tiles, which changes the picture a little."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to run the model on the device."""

    tier: Tier
    weight_bytes: int
    """On the device at the worst moment."""
    host_bytes: int
    """In the machine's own memory besides."""
    fits: tuple[Fit, ...]
    fidelity: str
    speed: str

    @property
    def works(self) -> bool:
        """Whether the first size, the model's default, runs."""
        return bool(self.fits) and self.fits[0].images > 0


def plan(size: ModelSize, vram_bytes: int, shapes: Sequence[tuple[int, int]], *, most_images: int = 16) -> list[Plan]:
    """Return every tier's plan, the best first, for a device with `vram_bytes` free. `shapes[0]` is the model's default size.

    The one to take is the first that works: see `best`.
    """
    return [_plan_tier(tier, size, vram_bytes, shapes, most_images) for tier in Tier]


def best(plans: Sequence[Plan]) -> Plan | None:
    """The first plan under which the model's default size runs, or None."""
    return next((candidate for candidate in plans if candidate.works), None)


def weight_bytes(size: ModelSize, tier: Tier) -> int:
    """Weights on the device at the worst moment of a tier."""
    width = 1 if tier in EIGHT_BIT else 2
    denoiser, vae = size.denoiser * width, size.vae * 2
    encoders = (size.encoders - size.encoders_kept_wide) * width + size.encoders_kept_wide * 2
    if tier is Tier.GROUP_OFFLOAD:
        return STREAMED_BLOCKS * size.denoiser * 2 // size.blocks + vae
    if tier is Tier.SEQUENTIAL:
        return (size.largest_layer or size.denoiser // 100) * 2 + vae
    if tier in SWAPS:
        return max(denoiser, encoders) + vae
    return denoiser + encoders + vae


def _plan_tier(tier: Tier, size: ModelSize, vram: int, shapes: Sequence[tuple[int, int]], most_images: int) -> Plan:
    weights = weight_bytes(size, tier)
    free = int(vram * USABLE) - CONTEXT_BYTES - weights
    total = (size.denoiser + size.encoders + size.vae) * 2
    host = total - weights if tier in STREAMED else size.encoders * 2 if tier in SWAPS else 0
    fits = tuple(_fit(size, free, width, height, most_images) for width, height in shapes)
    return Plan(tier, weights, host, fits, FIDELITY[tier], _speed(tier, size))


def _fit(size: ModelSize, free: int, width: int, height: int, most_images: int) -> Fit:
    pixels = width * height
    images = min(most_images, int(free // (size.activation_bytes * pixels))) if free > 0 else 0
    tiled = size.decode_bytes * pixels > free
    if tiled and size.tiled_decode_bytes > free:
        images = 0
    return Fit(width, height, images, tiled and images > 0)


def _speed(tier: Tier, size: ModelSize) -> str:
    if tier in SWAPS:
        width = 1 if tier in EIGHT_BIT else 2
        moved = (size.denoiser + size.encoders) * width
        return f"each new prompt moves {moved / GIB:.1f} GiB: about {moved / PCIE_BYTES_PER_S:.1f} s; cached prompts cost nothing"
    if tier is Tier.GROUP_OFFLOAD:
        moved = size.denoiser * 2
        return (
            f"each step moves {moved / GIB:.1f} GiB: at least {moved / PCIE_BYTES_PER_S:.1f} s a step, shared by all images in it"
        )
    if tier is Tier.SEQUENTIAL:
        return "several times slower than group-offload: every layer waits for its weights"
    if tier in EIGHT_BIT:
        return "about as fast as full weights"
    return "full"
