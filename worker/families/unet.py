"""What the UNet families share: samplers, guidance pairs, per-image timesteps. Images of one size share a pass."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from imagefarm.catalogue import Catalogue
from imagefarm.errors import RenderError
from imagefarm.model_entry import ModelEntry
from imagefarm.recipe import Recipe
from worker.families.base import Embedding, Sample
from worker.families.inpaint import InpaintState, latent_mask
from worker.families.samplers import make_scheduler, takes_generator
from worker.families.tensors import signed, to_device
from worker.weights.model_files import ModelFiles, adapter_file


class UNetFamily(ABC):
    """A Stable Diffusion pipeline, driven step by step. An image that renders alone is bit-equal to the pipeline's."""

    pipelines: ClassVar[tuple[str, ...]]
    pipeline_type: ClassVar[Any]
    half: ClassVar[torch.dtype] = torch.float16
    left_out: ClassVar[dict[str, None]]
    """Optional components that are not loaded."""

    def __init__(self, pipe: Any, device: torch.device, entry: ModelEntry) -> None:
        self.pipe = pipe
        self.denoiser = pipe.unet
        self.vae = pipe.vae
        self.device = device
        self.dtype: torch.dtype = pipe.unet.dtype
        self.encoding: tuple[str, ...] = (str(pipe.tokenizer.model_max_length), str(pipe.text_encoder.dtype))
        self._schedulers: dict[str, Any] = {}
        # a distilled UNet takes the guidance as a number and needs no second entry for it
        self._guidance_features = pipe.unet.config.time_cond_proj_dim
        if self.vae.dtype == torch.float16 and self.vae.config.force_upcast:
            self.vae.to(torch.float32)

    @classmethod
    def load(cls, entry: ModelEntry, catalogue: Catalogue, files: ModelFiles, dtype: torch.dtype) -> Any:
        common: dict[str, Any] = {"dtype": dtype, "local_files_only": True, **cls.left_out}
        if files.lone_file is not None:
            pipe = cls.pipeline_type.from_single_file(str(files.lone_file), config=str(files.folder), **common)
        else:
            pipe = cls.pipeline_type.from_pretrained(str(files.folder), variant=files.variant, use_safetensors=True, **common)
        if entry.adapter is not None:
            file = adapter_file(entry, catalogue)
            pipe.load_lora_weights(str(file.parent), weight_name=file.name, use_safetensors=True, local_files_only=True)
            # the adapter is part of the model: fused once, it costs nothing per step
            pipe.fuse_lora(lora_scale=entry.adapter.weight)
            pipe.unload_lora_weights()
        return pipe

    def texts(self, recipe: Recipe) -> list[str]:
        return [recipe.prompt, recipe.negative_prompt] if self._is_guided(recipe) else [recipe.prompt]

    @abstractmethod
    def encode(self, text: str) -> Embedding:
        """Encode one text with the pipeline's own text encoders."""

    def encode_many(self, texts: Sequence[str]) -> list[Embedding]:
        # CLIP encodes 77 tokens in milliseconds; sharing passes would save nothing
        return [self.encode(text) for text in texts]

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
        prompt = embeddings[recipe.prompt]
        generator = torch.Generator("cpu").manual_seed(seed)
        scheduler = self._scheduler(recipe.sampler)
        try:
            scheduler.set_timesteps(recipe.steps, device="cpu")
        except ValueError as error:
            raise RenderError("input_invalid", f"sampler {recipe.sampler} cannot take {recipe.steps} steps: {error}") from None
        first = 0
        if init_image is not None:
            strength = 1.0 if recipe.strength is None else recipe.strength
            first = min(recipe.steps - 1, recipe.steps - min(int(recipe.steps * strength), recipe.steps))
        first *= scheduler.order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        timesteps = scheduler.timesteps[first:]
        inpaint = None
        if init_image is None:
            factor = self.pipe.vae_scale_factor
            shape = (1, self.denoiser.config.in_channels, recipe.height // factor, recipe.width // factor)
            noise = to_device(torch.randn(shape, generator=generator, dtype=dtype), self.device)
            latents = noise * scheduler.init_noise_sigma
        else:
            encoded, noise = self._encoded(init_image, generator, dtype)
            if mask is not None:
                encoded = encoded.contiguous()  # the inpainting pipelines use this layout, and the layout affects the last bits
            # the inpainting pipelines start from pure noise, while image-to-image starts from the noised image
            from_noise = mask is not None and recipe.strength in {None, 1.0}
            latents = noise * scheduler.init_noise_sigma if from_noise else scheduler.add_noise(encoded, noise, timesteps[:1])
            if mask is not None:
                inpaint = self._inpaint_state(mask, encoded, noise, generator)
        negative = self._negative(recipe, embeddings) if self._is_guided(recipe) else None
        return Sample(
            width=recipe.width,
            height=recipe.height,
            latents=latents,
            generator=generator,
            scheduler=scheduler,
            timesteps=timesteps,
            times=to_device(timesteps.to(torch.float32), self.device),
            prompt=prompt,
            negative=negative,
            guidance=recipe.guidance,
            finite_check=torch.zeros((), device=self.device),
            conditions=self._conditions(recipe, prompt, dtype) | self._guidance_condition(recipe, dtype),
            inpaint=inpaint,
        )

    def lengths(self, sample: Sample) -> tuple[int, ...]:
        return (sample.latents.shape[2] * sample.latents.shape[3],)

    def pass_key(self, sample: Sample) -> Hashable:
        return sample.latents.shape, sample.prompt.tokens.shape

    @torch.inference_mode()
    def predict(self, samples: Sequence[Sample]) -> list[torch.Tensor]:
        dtype = self.denoiser.dtype
        inputs = [sample.scheduler.scale_model_input(sample.latents, sample.timesteps[sample.step]) for sample in samples]
        # all negatives, then all positives: the pipeline's own order for one image
        guided = [place for place, sample in enumerate(samples) if sample.negative is not None]
        order = [*guided, *range(len(samples))]
        prompts = [_present(samples[place].negative) for place in guided] + [sample.prompt for sample in samples]
        output = self.denoiser(
            torch.cat([inputs[place] for place in order]).to(dtype),
            torch.stack([samples[place].times[samples[place].step] for place in order]),
            encoder_hidden_states=torch.stack([prompt.tokens for prompt in prompts]).to(dtype),
            timestep_cond=_stacked(samples, order, "timestep_cond", dtype),
            added_cond_kwargs=self._added_conditions(samples, order, prompts, dtype),
            return_dict=False,
        )[0]
        negatives = dict(zip(guided, output[: len(guided), None], strict=True))
        predictions = []
        for place, (sample, prediction) in enumerate(zip(samples, output[len(guided) :, None], strict=True)):
            against = negatives.get(place)
            predictions.append(prediction if against is None else against + sample.guidance * (prediction - against))
        return predictions

    @torch.inference_mode()
    def advance(self, sample: Sample, prediction: torch.Tensor) -> None:
        draws = {"generator": sample.generator} if takes_generator(sample.scheduler.step.__func__) else {}
        timestep = sample.timesteps[sample.step]
        sample.latents = sample.scheduler.step(prediction, timestep, sample.latents, **draws, return_dict=False)[0]
        sample.step += 1
        if (inpaint := sample.inpaint) is not None:
            known = inpaint.latents
            if not sample.done:
                at = sample.timesteps[sample.step : sample.step + 1]
                known = sample.scheduler.add_noise(inpaint.latents, inpaint.noise, at)
            sample.latents = inpaint.blend(sample.latents, known)

    @torch.inference_mode()
    def estimate(self, sample: Sample, prediction: torch.Tensor) -> torch.Tensor:
        # the UNet's input has the same scale for every sampler, whatever scale the sampler keeps its latents in
        timestep = sample.timesteps[sample.step]
        shown = sample.scheduler.scale_model_input(sample.latents, timestep)
        kept = float(sample.scheduler.alphas_cumprod[round(float(timestep))])
        picture: torch.Tensor
        if sample.scheduler.config.prediction_type == "v_prediction":
            picture = kept**0.5 * shown - (1 - kept) ** 0.5 * prediction
        else:
            picture = (shown - (1 - kept) ** 0.5 * prediction) / kept**0.5
        return picture

    @torch.inference_mode()
    def encode_image(
        self, image: torch.Tensor, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        config = self.vae.config
        distribution = self.vae.encode(image.to(self.vae.dtype)).latent_dist
        encoded: torch.Tensor = (distribution.mode() if generator is None else distribution.sample(generator)).to(dtype)
        if config.latents_mean is not None and config.latents_std is not None:
            mean, std = (encoded.new_tensor(values).view(1, -1, 1, 1) for values in (config.latents_mean, config.latents_std))
            encoded = (encoded - mean) * config.scaling_factor / std
        else:
            encoded = config.scaling_factor * encoded
        return encoded

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        config = self.vae.config
        latents = latents.to(self.vae.dtype)
        if config.latents_mean is not None and config.latents_std is not None:
            mean, std = (latents.new_tensor(values).view(1, -1, 1, 1) for values in (config.latents_mean, config.latents_std))
            latents = latents * std / config.scaling_factor + mean
        else:
            latents = latents / config.scaling_factor
        decoded: torch.Tensor = self.vae.decode(latents, return_dict=False)[0]
        return decoded

    def _is_guided(self, recipe: Recipe) -> bool:
        return recipe.guidance > 1 and self._guidance_features is None

    def _negative(self, recipe: Recipe, embeddings: Mapping[str, Embedding]) -> Embedding:
        return embeddings[recipe.negative_prompt]

    def _conditions(self, recipe: Recipe, prompt: Embedding, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {}

    def _added_conditions(
        self, samples: Sequence[Sample], order: Sequence[int], prompts: Sequence[Embedding], dtype: torch.dtype
    ) -> dict[str, torch.Tensor] | None:
        return None

    def _guidance_condition(self, recipe: Recipe, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        if self._guidance_features is None:
            return {}
        scale = torch.tensor(recipe.guidance - 1).repeat(1)
        embedded = self.pipe.get_guidance_scale_embedding(scale, embedding_dim=self._guidance_features)
        return {"timestep_cond": to_device(embedded, self.device).to(dtype)}

    def _scheduler(self, sampler: str) -> Any:
        if sampler not in self._schedulers:
            self._schedulers[sampler] = make_scheduler(sampler, self.pipe.scheduler.config)
        # set_timesteps replaces the objects that a step changes, so a shallow copy is an independent scheduler
        return copy.copy(self._schedulers[sampler])

    def _inpaint_state(
        self, mask: NDArray[np.uint8], encoded: torch.Tensor, noise: torch.Tensor, generator: torch.Generator
    ) -> InpaintState:
        """The kept part of an encoded image. Raises RenderError for a UNet with a mask input of its own."""
        if self.denoiser.config.in_channels != self.vae.config.latent_channels:
            raise RenderError("not_supported", f"mask: a UNet of {self.denoiser.config.in_channels} channels is not stepped here")
        # the pipelines also encode the masked image, which this UNet does not use; only the random numbers drawn matter
        torch.randn(encoded.shape, generator=generator, dtype=self.vae.dtype)
        return InpaintState(encoded, noise, latent_mask(mask, encoded, self.device))

    def _encoded(
        self, image: NDArray[np.uint8], generator: torch.Generator, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The image as latents and the noise for it, drawn in the order of the image-to-image pipelines."""
        encoded = self.encode_image(to_device(signed(image), self.device), generator, dtype)
        noise = to_device(torch.randn(encoded.shape, generator=generator, dtype=dtype), self.device)
        return encoded, noise


def tokens_cut(tokenizer: Any, text: str) -> int:
    """Tokens at the end of `text` beyond CLIP's limit (75 and two marks)."""
    return max(0, len(tokenizer(text, verbose=False).input_ids) - int(tokenizer.model_max_length))


def _present(embedding: Embedding | None) -> Embedding:
    if embedding is None:
        raise ValueError("a guided image without a negative embedding")
    return embedding


def _stacked(samples: Sequence[Sample], order: Sequence[int], name: str, dtype: torch.dtype) -> torch.Tensor | None:
    """A condition of all entries of a pass, or None where the images have none."""
    if name not in samples[0].conditions:
        return None
    return torch.cat([samples[place].conditions[name] for place in order]).to(dtype)
