"""Where weights wait while they are not in use: encoder and denoiser that take turns, and blocks that are streamed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from worker.memory.planner import OffloadMode

HOST = torch.device("cpu")
BLOCKS_PER_GROUP = 1
"""Blocks that travel together: one runs, the next one comes."""


def apply_offload(
    pipe: Any, where: torch.device, mode: OffloadMode, *, denoisers: Sequence[str], encoders: Sequence[str]
) -> EncoderSwap | None:
    """Move a pipeline's networks to where `mode` says; from then on they are on `where` whenever they run.

    `denoisers` and `encoders` are names of components; everything else (decoders, above all) goes to `where` for good.
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
    """Two sides that share a place on the device: whoever is about to run comes in, and the other goes out before.

    Hooks do it, so that nobody who calls a network has to think of it, and several prompts in a row move nothing.
    """

    def __init__(self, where: torch.device, sides: Mapping[str, Sequence[nn.Module]]) -> None:
        self.where = where
        self.sides = sides
        self.present = ""
        self.swaps = 0
        """Times that a side came in."""
        self._moving = threading.Lock()
        for side, modules in sides.items():
            for module in modules:
                # a language model's body is also called by itself
                for entrance in (module, getattr(module, "model", None)):
                    if isinstance(entrance, nn.Module):
                        entrance.register_forward_pre_hook(lambda *_, side=side: self.swap_in(side))

    def swap_in(self, side: str) -> None:
        """Have one side on the device."""
        if self.present == side:
            return
        # whoever calls a network does it in inference mode, and weights that were moved there could never be assigned again
        with self._moving, torch.inference_mode(False):
            for other, modules in self.sides.items():
                if other != side:
                    for module in modules:
                        module.to(HOST)
            if self.where.type == "cuda":
                torch.cuda.empty_cache()  # what went out was one large piece; what comes in may need it whole
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
            # the next block comes on a stream of its own while one runs; layer by layer nothing is in advance, to hold least
            use_stream=is_gpu and blocks,
            record_stream=is_gpu and blocks,
            non_blocking=is_gpu,
        )
