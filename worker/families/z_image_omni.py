"""Z-Image Omni and Edit: Z-Image with an image that the prompt refers to."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import ZImageOmniPipeline
from numpy.typing import NDArray
from PIL import Image

from imagefarm.errors import RenderError
from imagefarm.recipe import Recipe
from worker.families.base import Embedding, Sample
from worker.families.tensors import signed, to_device
from worker.families.z_image import ZImage, image_tokens, padded

USER, ASSISTANT, END = "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>"
BEFORE_IMAGE, AFTER_IMAGE = f"{USER}<|vision_start|>", f"<|vision_end|>{END}"


class ZImageOmni(ZImage):
    """`ZImageOmniPipeline`, driven step by step. An init image is a condition of the model; strength has no effect.

    The pipeline splits the prompt at the image: the text before it, the text after it, and the text after the new image's place.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("ZImageOmniPipeline",)
    pipeline_type: ClassVar[Any] = ZImageOmniPipeline

    def texts(self, recipe: Recipe) -> list[str]:
        prompts = [recipe.prompt, recipe.negative_prompt] if recipe.guidance > 0 else [recipe.prompt]
        words = [_words(prompt, has_image=recipe.init_image is not None) for prompt in prompts]
        return words if recipe.init_image is None else [*words, BEFORE_IMAGE, AFTER_IMAGE]

    def _written(self, text: str) -> str:
        return text

    @torch.inference_mode()
    def start(
        self,
        recipe: Recipe,
        seed: int,
        embeddings: Mapping[str, Embedding],
        *,
        dtype: torch.dtype,
        init_image: NDArray[np.uint8] | None = None,
        mask: NDArray[np.uint8] | None = None,
    ) -> Sample:
        if mask is not None:
            raise RenderError("not_supported", "mask: a model of family z-image-omni changes a whole picture, by words")
        has_image = init_image is not None
        named = {
            prompt: embeddings[text]
            for prompt in (recipe.negative_prompt, recipe.prompt)
            if (text := _words(prompt, has_image=has_image)) in embeddings
        }
        sample = super().start(recipe, seed, named, dtype=dtype)
        if init_image is not None:
            sample.conditions = self._shown(init_image, dtype) | {
                "before": embeddings[BEFORE_IMAGE].tokens,
                "after": embeddings[AFTER_IMAGE].tokens,
            }
        return sample

    def lengths(self, sample: Sample) -> tuple[int, ...]:
        image, caption = super().lengths(sample)
        shown = sample.conditions
        if not shown:
            return image, caption
        vision = padded(shown["vision"].shape[0] * shown["vision"].shape[1])
        around = padded(len(shown["before"])) + padded(len(shown["after"]))
        return image + image_tokens(shown["latents"]), caption + around, vision

    def pass_key(self, sample: Sample) -> Hashable:
        return bool(sample.conditions)

    def _run(self, entries: Sequence[tuple[Sample, Embedding]]) -> list[torch.Tensor]:
        dtype = self.denoiser.dtype
        images: list[list[torch.Tensor]] = []
        captions: list[list[torch.Tensor]] = []
        visions: list[list[torch.Tensor | None] | None] = []
        noisy: list[list[int]] = []
        for sample, prompt in entries:
            latents, shown = sample.latents[0].unsqueeze(1).to(dtype), sample.conditions
            if shown:
                images.append([shown["latents"].to(dtype), latents])
                captions.append([part.to(dtype) for part in (shown["before"], prompt.tokens, shown["after"])])
                visions.append([shown["vision"].to(dtype), None])
                noisy.append([0, 1])
            else:
                images.append([latents])
                captions.append([prompt.tokens.to(dtype)])
                visions.append(None)
                noisy.append([1])
        outputs: list[torch.Tensor] = self.denoiser(
            x=images,
            t=torch.stack([sample.times[sample.step] for sample, _ in entries]),
            cap_feats=captions,
            siglip_feats=visions,
            image_noise_mask=noisy,
            return_dict=False,
        )[0]
        return outputs

    def _shown(self, image: NDArray[np.uint8], dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The image as latents (C, 1, h, w) and as the vision encoder sees it (rows, columns, features)."""
        latents = self.encode_image(to_device(signed(image), self.device), dtype=dtype)[0].unsqueeze(1)
        inputs = self.pipe.siglip_processor(images=[Image.fromarray(image)], return_tensors="pt")
        rows, columns = inputs.spatial_shapes[0].tolist()
        hidden = self.pipe.siglip(**inputs.to(self.device)).last_hidden_state[:, : rows * columns]
        return {"latents": latents, "vision": hidden.view(rows, columns, -1).to(dtype)}


def _words(prompt: str, *, has_image: bool) -> str:
    if has_image:
        return f"<|vision_end|>{prompt}{END}\n{ASSISTANT}<|vision_start|>"
    return f"{USER}{prompt}{END}\n{ASSISTANT}"
