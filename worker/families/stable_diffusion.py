"""Stable Diffusion 1.5 and models of the same architecture: SD-Turbo, LCM, fine-tunes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionPipeline

from worker.families.base import Embedding
from worker.families.tensors import to_device
from worker.families.unet import UNetFamily, tokens_cut


class StableDiffusion(UNetFamily):
    """`StableDiffusionPipeline` step by step."""

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline",)
    pipeline_type: ClassVar[Any] = StableDiffusionPipeline
    left_out: ClassVar[dict[str, Any]] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    @torch.inference_mode()
    def encode(self, text: str) -> Embedding:
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        text = self.pipe.maybe_convert_prompt(text, tokenizer)
        length = tokenizer.model_max_length
        tokens = tokenizer([text], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        mask = to_device(tokens.attention_mask, self.device) if getattr(encoder.config, "use_attention_mask", False) else None
        hidden = encoder(to_device(tokens.input_ids, self.device), attention_mask=mask)[0]
        return Embedding(hidden[0].to(encoder.dtype), cut=tokens_cut(tokenizer, text))
