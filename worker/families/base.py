"""The interface of a model family, and the sample that the engine moves from step to step."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from imagefarm.catalogue import Catalogue
from imagefarm.model_entry import ModelEntry
from imagefarm.recipe import Recipe
from worker.families.inpaint import InpaintState

if TYPE_CHECKING:
    from worker.weights.model_files import ModelFiles


@dataclass(frozen=True, slots=True, repr=False)
class Embedding:
    """An encoded prompt as the denoiser takes it."""

    tokens: torch.Tensor
    """(length, features) on the device."""
    pooled: torch.Tensor | None = None
    """(features,): the pooled prompt vector, for families whose denoiser needs one."""

    cut: int = 0
    """Tokens at the prompt's end that were cut off because they exceed the encoder's maximum length."""
    digest: str = ""
    """SHA-256 of the numbers, for the audit."""
    together: int = 1
    """Prompts in the same encoder pass. On a GPU the last bits may depend on it."""

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes + (0 if self.pooled is None else self.pooled.nbytes)

    def finite(self) -> bool:
        """Whether every number is finite. Reads from the device, so never call it inside a step."""
        return bool(torch.isfinite(self.tokens).all()) and (self.pooled is None or bool(torch.isfinite(self.pooled).all()))


@dataclass(slots=True, repr=False)
class Sample:
    """One image in progress: its noise, its position in its own schedule, its prompt."""

    width: int
    height: int
    latents: torch.Tensor
    """(1, channels, height / 8, width / 8); the divisor is the VAE's scale factor."""
    generator: torch.Generator
    """On the CPU, so that a seed gives the same noise on every device."""
    scheduler: Any
    """The scheduler is stateful: each image has its own."""
    timesteps: torch.Tensor
    """(steps,) on the CPU: the scheduler's lookups in a device tensor would wait for the device."""
    times: torch.Tensor
    """(steps,) on the device, for the denoiser."""
    prompt: Embedding
    negative: Embedding | None
    """None where guidance has no effect. Such an image needs one entry of a forward pass instead of two."""
    guidance: float
    finite_check: torch.Tensor
    """A device scalar that stays finite as long as every latent was finite."""
    conditions: dict[str, torch.Tensor] = field(default_factory=dict)
    """Further inputs of this family's denoiser for this image, each (1, ...)."""
    inpaint: InpaintState | None = None
    """What inpainting keeps unchanged."""
    step: int = 0

    @property
    def steps(self) -> int:
        return self.timesteps.shape[0]

    @property
    def done(self) -> bool:
        return self.step >= self.steps

    @property
    def entries(self) -> int:
        """Entries that this image takes in a forward pass."""
        return 1 if self.negative is None else 2


class Family(Protocol):
    """A loaded pipeline, driven step by step. One object serves one pipeline and keeps no state between calls."""

    pipelines: ClassVar[tuple[str, ...]]
    """Classes of diffusers pipelines that this family can drive."""
    half: ClassVar[torch.dtype]
    """The 16-bit dtype that the family's models are made for."""

    pipe: Any
    """The diffusers pipeline whose modules are used. Its own scheduler is never stepped."""
    denoiser: torch.nn.Module
    vae: torch.nn.Module
    device: torch.device
    dtype: torch.dtype
    encoding: tuple[str, ...]
    """What an embedding depends on besides the text: template, maximum length, dtype."""

    def __init__(self, pipe: Any, device: torch.device, entry: ModelEntry) -> None: ...

    @classmethod
    def load(cls, entry: ModelEntry, catalogue: Catalogue, files: ModelFiles, dtype: torch.dtype) -> Any:
        """Build the pipeline on the CPU from files that were found and checked."""

    def texts(self, recipe: Recipe) -> list[str]:
        """The texts whose embeddings `start` needs."""

    def encode(self, text: str) -> Embedding:
        """Encode one text."""

    def encode_many(self, texts: Sequence[str]) -> list[Embedding]:
        """Encode these texts, in one pass where the encoder gains from it."""

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
        """Create the noise and the schedule of one image. `init_image` is (height, width, 3) RGB at the recipe's size; `mask` is
        (height, width), white where the image is repainted.
        """

    def lengths(self, sample: Sample) -> tuple[int, ...]:
        """Lengths in tokens of the sample's parts in a forward pass (image, caption). Padding depends on their sum."""

    def pass_key(self, sample: Sample) -> Hashable:
        """Samples may share a forward pass only if their keys are equal."""

    def predict(self, samples: Sequence[Sample]) -> list[torch.Tensor]:
        """One forward pass for the current step of each sample. It changes nothing, so it may be repeated."""

    def advance(self, sample: Sample, prediction: torch.Tensor) -> None:
        """Take the step that `predict` predicted."""

    def estimate(self, sample: Sample, prediction: torch.Tensor) -> torch.Tensor:
        """The latents that the image would end with if `prediction`, made for the current step, were exact."""

    def encode_image(
        self, image: torch.Tensor, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Encode (B, 3, H, W) in -1..1 to latents (B, C, h, w) as the denoiser expects them, in `dtype`.

        `generator` samples from the encoder's distribution; None takes its mean.
        """

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode (B, C, h, w) latents to (B, 3, H, W) in about -1..1, in the decoder's dtype."""
