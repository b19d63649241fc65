"""What a family of models must be able to do, and the image in the making that the engine moves from step to step."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from imagefarm.catalogue import Catalogue, ModelEntry
from imagefarm.recipe import Recipe
from worker.families.inpaint import InpaintState

if TYPE_CHECKING:
    from worker.weights.model_files import ModelFiles


@dataclass(frozen=True, slots=True, repr=False)
class Embedding:
    """A prompt as the denoiser takes it."""

    tokens: torch.Tensor
    """(length, features) on the device."""
    pooled: torch.Tensor | None = None
    """(features,), for families whose denoiser wants one vector of the whole prompt."""

    cut: int = 0
    """Tokens at the prompt's end that the encoder had no place for."""
    digest: str = ""
    """SHA-256 of the numbers, for the audit."""
    together: int = 1
    """Prompts that shared its pass of the encoder: on a GPU the last bits may depend on it."""

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes + (0 if self.pooled is None else self.pooled.nbytes)

    def finite(self) -> bool:
        """Whether every number is finite. Reads from the device: not inside a step."""
        return bool(torch.isfinite(self.tokens).all()) and (self.pooled is None or bool(torch.isfinite(self.pooled).all()))


@dataclass(slots=True, repr=False)
class Sample:
    """One image in the making: its noise, its place in its own schedule, its prompt."""

    width: int
    height: int
    latents: torch.Tensor
    """(1, channels, height / 8, width / 8), give or take the VAE's factor."""
    generator: torch.Generator
    """On the CPU, so that the same seed gives the same noise on every device."""
    scheduler: Any
    """Holds state: one for each image."""
    timesteps: torch.Tensor
    """(steps,) on the CPU, as the scheduler takes them: a device tensor would make its lookups wait for the device."""
    times: torch.Tensor
    """(steps,) on the device, as the denoiser takes them."""
    prompt: Embedding
    negative: Embedding | None
    """None where guidance does not act: then the image needs one entry of a forward pass, else two."""
    guidance: float
    finite_check: torch.Tensor
    """A device scalar that stays finite as long as every latent did."""
    conditions: dict[str, torch.Tensor] = field(default_factory=dict)
    """What else the denoiser of the family takes for this image, each (1, ...)."""
    inpaint: InpaintState | None = None
    """What inpainting leaves as it is."""
    step: int = 0

    @property
    def steps(self) -> int:
        return self.timesteps.shape[0]

    @property
    def done(self) -> bool:
        return self.step >= self.steps

    @property
    def entries(self) -> int:
        """Places this image takes in a forward pass."""
        return 1 if self.negative is None else 2


class Family(Protocol):
    """A loaded pipeline seen step by step. One object serves one pipeline; it keeps no state between calls."""

    pipelines: ClassVar[tuple[str, ...]]
    """Classes of diffusers pipelines it can drive."""
    half: ClassVar[torch.dtype]
    """The 16-bit dtype that its models are made for."""

    pipe: Any
    """The diffusers pipeline whose modules are used; its own scheduler is never stepped."""
    denoiser: torch.nn.Module
    vae: torch.nn.Module
    device: torch.device
    dtype: torch.dtype
    encoding: tuple[str, ...]
    """What besides the text decides an embedding: template, longest length, dtype."""

    def __init__(self, pipe: Any, device: torch.device, entry: ModelEntry) -> None: ...

    @classmethod
    def load(cls, entry: ModelEntry, catalogue: Catalogue, files: ModelFiles, dtype: torch.dtype) -> Any:
        """Make the pipeline on the CPU from files that were found and checked."""

    def texts(self, recipe: Recipe) -> list[str]:
        """The texts that `start` needs embeddings of."""

    def encode(self, text: str) -> Embedding:
        """Encode one text."""

    def encode_many(self, texts: Sequence[str]) -> list[Embedding]:
        """Encode these texts, in one pass where the encoder gains by it."""

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
        """Make the noise and the schedule of one image. `init_image` is (height, width, 3) RGB at the recipe's size, `mask`
        (height, width), white where it is painted anew.
        """

    def lengths(self, sample: Sample) -> tuple[int, ...]:
        """Lengths of the sample's parts in a forward pass (image, caption), in tokens; their sum is what gets padded."""

    def pass_key(self, sample: Sample) -> Hashable:
        """Samples may share a forward pass only if their keys are equal."""

    def predict(self, samples: Sequence[Sample]) -> list[torch.Tensor]:
        """One forward pass for the current step of each sample; changes nothing, so it may be tried again."""

    def advance(self, sample: Sample, prediction: torch.Tensor) -> None:
        """Take the step that `predict` predicted."""

    def estimate(self, sample: Sample, prediction: torch.Tensor) -> torch.Tensor:
        """The latents that the image would end with if `prediction`, for its current step, were the whole truth."""

    def encode_image(
        self, image: torch.Tensor, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """(B, 3, H, W) in -1..1 -> latents (B, C, h, w) as the denoiser knows them, in `dtype`.

        `generator` draws from the encoder's distribution; None takes its mean.
        """

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) latents -> (B, 3, H, W) in about -1..1, in the decoder's dtype."""
