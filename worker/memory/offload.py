"""Where unused weights wait: encoder and denoiser that swap with each other, and blocks that are streamed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from worker.memory.planner import OffloadMode

HOST = torch.device("cpu")
BLOCKS_PER_GROUP = 1
"""Blocks that are moved together: one group runs while the next is copied."""


def apply_offload(
    pipe: Any, where: torch.device, mode: OffloadMode, *, denoisers: Sequence[str], encoders: Sequence[str]
) -> EncoderSwap | None:
    """Place a pipeline's networks as `mode` says. From then on each is on `where` whenever it runs.

    `denoisers` and `encoders` are names of components. All other components (the decoder, mostly) stay on `where`.
    """
    parts: dict[str, nn.Module] = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    moving = [parts[name] for name in (*denoisers, *encoders) if name in parts]
    if mode is OffloadMode.RESIDENT:
        pipe.to(where)
        return None
    for name, part in parts.items():
        if name not in (*denoisers, *encoders):
            part.to(where)
    if mode is OffloadMode.ENCODER_SWAPPED:
        return EncoderSwap(
            where,
            {
                "denoiser": [parts[name] for name in denoisers if name in parts],
                "encoder": [parts[name] for name in encoders if name in parts],
            },
        )
    _stream(moving, where, blocks=mode is OffloadMode.BLOCKS)
    return None


class EncoderSwap:
    """Two sets of networks that share the device: before one runs, the other is moved out.

    Forward hooks do this, so callers need not know of it, and several prompts in a row move nothing.
    """

    def __init__(self, where: torch.device, sides: Mapping[str, Sequence[nn.Module]]) -> None:
        self.where = where
        self.sides = sides
        self.present = ""
        self.swaps = 0
        """Number of times that a set was moved in."""
        self._moving = threading.Lock()
        for side, modules in sides.items():
            for module in modules:
                # a language model's body is also called directly
                for entrance in (module, getattr(module, "model", None)):
                    if isinstance(entrance, nn.Module):
                        entrance.register_forward_pre_hook(lambda *_, side=side: self.swap_in(side))

    def swap_in(self, side: str) -> None:
        """Move one set onto the device."""
        if self.present == side:
            return
        # callers use inference mode, and weights moved in inference mode could never be assigned again
        with self._moving, torch.inference_mode(False):
            for other, modules in self.sides.items():
                if other != side:
                    for module in modules:
                        module.to(HOST)
            if self.where.type == "cuda":
                torch.cuda.empty_cache()  # the evicted set was one large block that the new one may need whole
            for module in self.sides[side]:
                module.to(self.where)
            self.present = side
            self.swaps += 1


def _stream(modules: Sequence[nn.Module], where: torch.device, *, blocks: bool) -> None:
    from diffusers.hooks.group_offloading import apply_group_offloading

    is_gpu = where.type == "cuda"
    for module in modules:
        apply_group_offloading(
            module,
            onload_device=where,
            offload_device=HOST,
            offload_type="block_level" if blocks else "leaf_level",
            num_blocks_per_group=BLOCKS_PER_GROUP if blocks else None,
            # one block is prefetched on its own stream while another runs; layer by layer nothing is prefetched, to hold least
            use_stream=is_gpu and blocks,
            record_stream=is_gpu and blocks,
            non_blocking=is_gpu,
        )
