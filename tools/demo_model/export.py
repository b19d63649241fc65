"""Puts the trained parts together as a ZImagePipeline folder with fp16 weights."""

# mypy: allow-untyped-calls
from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from transformers import AutoTokenizer, Qwen3Model

from tools.demo_model.transformer import SHIFT

PARTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")


def export_model(folder: Path, out: Path) -> int:
    """Write the parts in `folder` to the model folder `out`, replacing those there; return the size in bytes.

    Other files in `out`, such as the model card, stay.
    """
    pipeline: Any = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT, use_dynamic_shifting=False),
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=Qwen3Model.from_pretrained(folder / "text_encoder"),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        transformer=ZImageTransformer2DModel.from_pretrained(folder / "transformer"),
    )
    for part in PARTS:
        shutil.rmtree(out / part, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(out)
    for config in out.glob("*/config.json"):
        _drop_origin(config)
    return sum(file.stat().st_size for part in PARTS for file in (out / part).iterdir())


def _drop_origin(config: Path) -> None:
    """Remove the name of the folder that a part was loaded from."""
    values = json.loads(config.read_text())
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2) + "\n")
