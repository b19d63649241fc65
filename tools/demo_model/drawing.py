"""Draws pictures with a model folder, the way the library's own pipeline does."""

# mypy: allow-untyped-calls
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ZImagePipeline
from PIL import Image


class Artist:
    """The pipeline in `model`, in float32 on the CPU, without its progress bar."""

    def __init__(self, model: Path) -> None:
        self.pipeline: Any = ZImagePipeline.from_pretrained(
            model, use_safetensors=True, local_files_only=True, dtype=torch.float32
        )
        self.pipeline.set_progress_bar_config(disable=True)

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], edge: int, steps: int = 8, guidance: float = 0.0
    ) -> list[Image.Image]:
        """One square picture of `edge` pixels per prompt and seed, in batches of 16."""
        images: list[Image.Image] = []
        for start in range(0, len(prompts), 16):
            part = list(prompts[start : start + 16])
            generators = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + 16]]
            images += self.pipeline(
                part,
                height=edge,
                width=edge,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=generators,
            ).images
        return images
