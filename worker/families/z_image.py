"""Z-Image (Turbo and base): its transformer takes mixed sizes, steps and prompt lengths in one forward pass."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import ZImagePipeline, ZImageTransformer2DModel
from diffusers.pipelines.z_image.pipeline_z_image import calculate_shift, get_default_z_image_sigmas
from numpy.typing import NDArray

from imagefarm.catalogue import Catalogue
from imagefarm.model_entry import ModelEntry
from imagefarm.recipe import Recipe
from worker.families.base import Embedding, Sample
from worker.families.inpaint import InpaintState, latent_mask
from worker.families.tensors import signed, to_device
from worker.weights.model_files import ModelFiles

MAX_PROMPT_TOKENS = 512
"""Tokens. The encoder always runs on this padded length, as in the pipeline; another length changes the last bits."""
PADDED_TO = 32
"""The transformer pads captions and images to multiples of this."""


class ZImage:
    """`ZImagePipeline`, driven step by step. An image that renders alone is bit-equal to the pipeline's."""

    pipelines: ClassVar[tuple[str, ...]] = ("ZImagePipeline",)
    pipeline_type: ClassVar[Any] = ZImagePipeline
    half: ClassVar[torch.dtype] = torch.bfloat16

    def __init__(self, pipe: Any, device: torch.device, entry: ModelEntry) -> None:
        self.pipe = pipe
        self.denoiser = pipe.transformer
        self.vae = pipe.vae
        self.device = device
        self.dtype: torch.dtype = pipe.transformer.dtype
        template = hashlib.sha256(str(pipe.tokenizer.chat_template).encode()).hexdigest()[:16]
        self.encoding: tuple[str, ...] = (template, str(MAX_PROMPT_TOKENS), str(pipe.text_encoder.dtype))
        # some releases store the encoder with its language head, which rendering does not use
        self._encoder = getattr(pipe.text_encoder, "model", pipe.text_encoder)

    @classmethod
    def load(cls, entry: ModelEntry, catalogue: Catalogue, files: ModelFiles, dtype: torch.dtype) -> Any:
        common: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
        if files.lone_file is not None:
            # single-file releases hold the transformer alone; encoder and VAE come from the configured source
            common["transformer"] = ZImageTransformer2DModel.from_single_file(
                str(files.lone_file), config=str(files.folder), subfolder="transformer", local_files_only=True, dtype=dtype
            )
        return cls.pipeline_type.from_pretrained(str(files.folder), variant=files.variant, **common)

    def texts(self, recipe: Recipe) -> list[str]:
        return [recipe.prompt, recipe.negative_prompt] if recipe.guidance > 0 else [recipe.prompt]

    def encode(self, text: str) -> Embedding:
        return self.encode_many([text])[0]

    @torch.inference_mode()
    def encode_many(self, texts: Sequence[str]) -> list[Embedding]:
        tokenizer, written = self.pipe.tokenizer, [self._written(text) for text in texts]
        tokens = tokenizer(written, padding="max_length", max_length=MAX_PROMPT_TOKENS, truncation=True, return_tensors="pt")
        masks = tokens.attention_mask.bool()
        with _without_last_layer(self._encoder):
            hidden = self._encoder(
                input_ids=to_device(tokens.input_ids, self.device), attention_mask=to_device(masks, self.device)
            )
        made = []
        for text, mask, states in zip(written, masks, hidden.last_hidden_state, strict=True):
            # positions are found on the host, where the mask is; asking the device would wait for it
            places = to_device(mask.nonzero()[:, 0], self.device)
            cut = max(0, len(tokenizer(text, verbose=False).input_ids) - MAX_PROMPT_TOKENS)
            made.append(Embedding(states.index_select(0, places), cut=cut))
        return made

    def _written(self, text: str) -> str:
        """The prompt with the encoder's chat template."""
        written: str = self.pipe.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        return written

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
        factor = self.pipe.vae_scale_factor
        generator = torch.Generator("cpu").manual_seed(seed)
        shape = (1, self.denoiser.in_channels, 2 * (recipe.height // (2 * factor)), 2 * (recipe.width // (2 * factor)))
        scheduler = self._schedule(recipe.steps, image_tokens=shape[2] * shape[3] // 4)
        first, inpaint = 0, None
        if init_image is None:
            scheduler.set_begin_index(0)
            latents = to_device(torch.randn(shape, generator=generator, dtype=torch.float32), self.device)
        else:
            first = _first_step(recipe)
            scheduler.set_begin_index(first)
            encoded, noise = self._encoded(init_image, generator, dtype)
            latents = scheduler.scale_noise(encoded, scheduler.timesteps[first : first + 1], noise)
            inpaint = None if mask is None else InpaintState(encoded, noise, latent_mask(mask, encoded, self.device))
        timesteps = scheduler.timesteps[first:]
        return Sample(
            width=recipe.width,
            height=recipe.height,
            latents=latents,
            generator=generator,
            scheduler=scheduler,
            timesteps=timesteps,
            times=to_device((1000 - timesteps) / 1000, self.device),
            prompt=embeddings[recipe.prompt],
            negative=embeddings[recipe.negative_prompt] if recipe.guidance > 0 else None,
            guidance=recipe.guidance,
            finite_check=torch.zeros((), device=self.device),
            inpaint=inpaint,
        )

    def lengths(self, sample: Sample) -> tuple[int, ...]:
        longest = max(len(sample.prompt.tokens), 0 if sample.negative is None else len(sample.negative.tokens))
        return image_tokens(sample.latents), padded(longest)

    def pass_key(self, sample: Sample) -> Hashable:
        return None

    @torch.inference_mode()
    def predict(self, samples: Sequence[Sample]) -> list[torch.Tensor]:
        negatives = [(sample, sample.negative) for sample in samples if sample.negative is not None]
        outputs = self._run([*((sample, sample.prompt) for sample in samples), *negatives])
        against = {id(sample): output for (sample, _), output in zip(negatives, outputs[len(samples) :], strict=True)}
        predictions = []
        for sample, output in zip(samples, outputs[: len(samples)], strict=True):
            prediction = output.float()
            if sample.negative is not None:
                # guidance is added to the positive prediction, not to the negative as in Stable Diffusion: weight 1 here is 2
                # there
                prediction = prediction + sample.guidance * (prediction - against[id(sample)].float())
            predictions.append(-prediction.squeeze(1)[None])
        return predictions

    def _run(self, entries: Sequence[tuple[Sample, Embedding]]) -> list[torch.Tensor]:
        """One pass of the transformer over pairs of an image and its prompt."""
        dtype = self.denoiser.dtype
        outputs: list[torch.Tensor] = self.denoiser(
            [sample.latents[0].unsqueeze(1).to(dtype) for sample, _ in entries],
            torch.stack([sample.times[sample.step] for sample, _ in entries]),
            [prompt.tokens.to(dtype) for _, prompt in entries],
            return_dict=False,
        )[0]
        return outputs

    @torch.inference_mode()
    def advance(self, sample: Sample, prediction: torch.Tensor) -> None:
        timestep = sample.timesteps[sample.step]
        sample.latents = sample.scheduler.step(prediction, timestep, sample.latents, return_dict=False)[0]
        sample.step += 1
        if sample.inpaint is not None:
            sample.latents = sample.inpaint.blend(sample.latents, self._known(sample, sample.inpaint))

    def estimate(self, sample: Sample, prediction: torch.Tensor) -> torch.Tensor:
        # a flow model predicts the direction from image to noise; sigma is the position of the latents on that path
        sigma = float(sample.scheduler.sigmas[len(sample.scheduler.sigmas) - 1 - sample.steps + sample.step])
        return sample.latents - sigma * prediction

    @torch.inference_mode()
    def encode_image(
        self, image: torch.Tensor, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        distribution = self.vae.encode(image.to(self.vae.dtype)).latent_dist
        encoded: torch.Tensor = distribution.mode() if generator is None else distribution.sample(generator)
        latents: torch.Tensor = (encoded - self.vae.config.shift_factor) * self.vae.config.scaling_factor
        return latents.to(dtype)

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents.to(self.vae.dtype) / self.vae.config.scaling_factor + self.vae.config.shift_factor
        decoded: torch.Tensor = self.vae.decode(latents, return_dict=False)[0]
        return decoded

    def _schedule(self, steps: int, image_tokens: int) -> Any:
        scheduler = copy.copy(self.pipe.scheduler)
        config = scheduler.config
        shift = calculate_shift(
            image_tokens,
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        scheduler.set_timesteps(sigmas=get_default_z_image_sigmas(steps), mu=shift, device="cpu")
        return scheduler

    def _known(self, sample: Sample, inpaint: InpaintState) -> torch.Tensor:
        """The kept part with the noise level of the current step: `scale_noise` without its copy of sigmas to the device."""
        if sample.done:
            return inpaint.latents
        sigmas = sample.scheduler.sigmas
        sigma = sigmas[len(sigmas) - 1 - sample.steps + sample.step].to(inpaint.latents.dtype)
        known: torch.Tensor = sigma * inpaint.noise + (1.0 - sigma) * inpaint.latents
        return known

    def _encoded(
        self, image: NDArray[np.uint8], generator: torch.Generator, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The image as latents and the noise for it, drawn in the order of `ZImageImg2ImgPipeline`."""
        encoded = self.encode_image(to_device(signed(image), self.device), generator, dtype)
        noise = to_device(torch.randn(encoded.shape, generator=generator, dtype=dtype), self.device)
        return encoded, noise


def _first_step(recipe: Recipe) -> int:
    """The step at which image-to-image enters the schedule; strength 1 is step 0."""
    strength = 1.0 if recipe.strength is None else recipe.strength
    return min(recipe.steps - 1, int(max(recipe.steps - min(recipe.steps * strength, recipe.steps), 0)))


def image_tokens(latents: torch.Tensor) -> int:
    """Image tokens of the latents (2 x 2 latents each), after padding."""
    return padded(latents.shape[-2] * latents.shape[-1] // 4)


def padded(length: int) -> int:
    return -(-length // PADDED_TO) * PADDED_TO


@contextmanager
def _without_last_layer(encoder: Any) -> Iterator[None]:
    """The embedding is the input of the encoder's last layer, so that layer and the final norm are skipped."""
    layers, norm = encoder.layers, encoder.norm
    encoder.layers, encoder.norm = layers[:-1], torch.nn.Identity()
    try:
        yield
    finally:
        encoder.layers, encoder.norm = layers, norm
