"""Stable Diffusion XL: two text encoders, and the image size as a condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionXLPipeline

from imagefarm.recipe import Recipe
from worker.families.base import Embedding, Sample
from worker.families.tensors import to_device
from worker.families.unet import UNetFamily, tokens_cut


class StableDiffusionXL(UNetFamily):
    """`StableDiffusionXLPipeline` step by step."""

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionXLPipeline",)
    pipeline_type: ClassVar[Any] = StableDiffusionXLPipeline
    left_out: ClassVar[dict[str, Any]] = {"feature_extractor": None, "image_encoder": None, "add_watermarker": False}

    def texts(self, recipe: Recipe) -> list[str]:
        if self._is_guided(recipe) and not self._zeros_for_empty(recipe):
            return [recipe.prompt, recipe.negative_prompt]
        return [recipe.prompt]

    @torch.inference_mode()
    def encode(self, text: str) -> Embedding:
        parts, pooled = [], None
        for tokenizer, encoder in (
            (self.pipe.tokenizer, self.pipe.text_encoder),
            (self.pipe.tokenizer_2, self.pipe.text_encoder_2),
        ):
            words = self.pipe.maybe_convert_prompt(text, tokenizer)
            length = tokenizer.model_max_length
            tokens = tokenizer([words], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            output = encoder(to_device(tokens.input_ids, self.device), output_hidden_states=True)
            parts.append(output.hidden_states[-2])
            if pooled is None and output[0].ndim == 2:
                pooled = output[0][0]
        both = torch.cat(parts, dim=-1)[0].to(self.pipe.text_encoder_2.dtype)
        return Embedding(both, pooled, cut=tokens_cut(self.pipe.tokenizer, text))

    def _zeros_for_empty(self, recipe: Recipe) -> bool:
        return not recipe.negative_prompt and bool(self.pipe.config.force_zeros_for_empty_prompt)

    def _negative(self, recipe: Recipe, embeddings: Mapping[str, Embedding]) -> Embedding:
        if not self._zeros_for_empty(recipe):
            return embeddings[recipe.negative_prompt]
        prompt = embeddings[recipe.prompt]
        pooled = None if prompt.pooled is None else torch.zeros_like(prompt.pooled)
        return Embedding(torch.zeros_like(prompt.tokens), pooled)

    def _conditions(self, recipe: Recipe, prompt: Embedding, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        # original size, crop, target size: the full image at its own size
        size = [recipe.height, recipe.width]
        return {"time_ids": to_device(torch.tensor([[*size, 0, 0, *size]], dtype=dtype), self.device)}

    def _added_conditions(
        self, samples: Sequence[Sample], order: Sequence[int], prompts: Sequence[Embedding], dtype: torch.dtype
    ) -> dict[str, torch.Tensor] | None:
        pooled = [prompt.pooled for prompt in prompts if prompt.pooled is not None]
        time_ids = torch.cat([samples[place].conditions["time_ids"] for place in order])
        return {"text_embeds": torch.stack(pooled).to(dtype), "time_ids": time_ids.to(dtype)}
