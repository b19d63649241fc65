"""Stable Diffusion 1.5 and its kin: SD-Turbo, LCM, fine-tunes of the same shape."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionPipeline

from worker.families.base import Embedding
from worker.families.unet import UNetFamily


class StableDiffusion(UNetFamily):
    """`StableDiffusionPipeline` step by step."""

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline",)
    pipeline_type: ClassVar[Any] = StableDiffusionPipeline
    left_out: ClassVar[dict[str, Any]] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    @torch.inference_mode()
    def encode(self, text: str) -> Embedding:
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        text = self.pipe.maybe_convert_prompt(text, tokenizer)
        tokens = tokenizer(
            [text], padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        mask = tokens.attention_mask.to(self.device) if getattr(encoder.config, "use_attention_mask", False) else None
        hidden = encoder(tokens.input_ids.to(self.device), attention_mask=mask)[0]
        return Embedding(hidden[0].to(encoder.dtype))
