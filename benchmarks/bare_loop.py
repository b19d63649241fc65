"""The baseline of the benchmarks: a script that calls diffusers once per image and saves each image as PNG."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from diffusers import ZImagePipeline

from imagefarm.catalogue import Catalogue
from imagefarm.settings import PROJECT_ROOT


class BareLoop:
    """The demo model in plain diffusers, on the CPU with one thread, as in the farm's worker."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        entry = Catalogue.read(PROJECT_ROOT / "models.toml").get("demo")
        self.default = entry.defaults
        self.pipe: Any = ZImagePipeline.from_pretrained(
            str(PROJECT_ROOT / entry.source), dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        self.pipe.set_progress_bar_config(disable=True)
        self.made = 0

    def picture(self, prompt: str, seed: int) -> float:
        """Render and save one image; return the wall seconds of the pipeline's call alone."""
        default = self.default
        started = time.perf_counter()
        image = self.pipe(
            prompt,
            width=default.width,
            height=default.height,
            num_inference_steps=default.steps,
            guidance_scale=default.guidance,
            generator=torch.Generator("cpu").manual_seed(seed),
        ).images[0]
        called = time.perf_counter() - started
        self.made += 1
        image.save(self.folder / f"{self.made:06}.png")
        return called

    def round(self, asked: list[tuple[str, int]]) -> tuple[float, float]:
        """Wall and CPU seconds for all of these (prompt, seed)."""
        wall, cpu = time.perf_counter(), time.process_time()
        for prompt, seed in asked:
            self.picture(prompt, seed)
        return time.perf_counter() - wall, time.process_time() - cpu
