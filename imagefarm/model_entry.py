"""Entries of the catalogue: models with their defaults and limits, LoRAs and upscalers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from imagefarm.recipe import Family, Recipe
from imagefarm.settings import Tier

MODEL_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
GROUPED_BY_SIZE: frozenset[Family] = frozenset({"sd15", "sdxl"})
"""Families whose UNet needs one image size for the whole forward pass."""


class Defaults(BaseModel):
    """A model's values for the fields that a request leaves out."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    width: int = Field(ge=16)
    height: int = Field(ge=16)
    steps: int = Field(ge=1)
    guidance: float = Field(ge=0)
    sampler: str
    negative_prompt: str = ""


class Limits(BaseModel):
    """The range of each field of a request. Sizes are in pixels; both sides are multiples of `multiple`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    min_side: int = Field(ge=16)
    max_side: int = Field(le=4096)
    multiple: int = Field(ge=1)
    max_pixels: int = Field(4096 * 4096, ge=256)
    max_steps: int = Field(ge=1)
    max_count: int = Field(16, ge=1, le=64)
    sizes: tuple[tuple[int, int], ...] = Field((), description="If given, the only sizes the model was trained for")

    def nearest_side(self, side: int) -> int:
        """The allowed side, in pixels, closest to `side`."""
        if self.sizes:
            return min({edge for size in self.sizes for edge in size}, key=lambda edge: abs(edge - side))
        return max(self.min_side, min(self.max_side, round(side / self.multiple) * self.multiple))


class Adapter(BaseModel):
    """A LoRA that is part of the model itself, such as LCM's. It is loaded together with the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str
    revision: str = ""
    weight_name: str = "pytorch_lora_weights.safetensors"
    weight: float = 1.0


class LoraEntry(BaseModel):
    """A LoRA that recipes may name."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str
    weight_name: str = "pytorch_lora_weights.safetensors"
    families: tuple[Family, ...]


class UpscalerEntry(BaseModel):
    """A network that upscales finished images. `lanczos` needs no entry."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str = ""
    source: str = Field(description="A .safetensors file: ESRGAN, Compact, SPAN or SwinIR")
    scale: int = Field(ge=2, le=4, description="How many times it enlarges each side")
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$", description="If given, no other file is loaded")
    license: str = ""


class ModelEntry(BaseModel):
    """One model: the source of its weights, its requirements, and the limits of its requests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=MODEL_NAME)
    title: str
    source: str = Field(description="A folder, a lone .safetensors file, or a hub id `owner/name`")
    revision: str = ""
    config: str = Field("", description="For a lone file: the folder or hub id whose configuration it follows")
    variant: str = ""
    family: Family
    license: str
    notes: str = ""
    dtype: Literal["auto", "bfloat16", "float32", "float16"] = "auto"
    tier: Tier = Field("auto", description="How workers hold it in memory; auto: as the setting `tier` says")
    features: tuple[Literal["negative_prompt", "init_image", "inpaint", "loras"], ...] = ()
    samplers: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    adapter: Adapter | None = None
    pins: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(default_factory=dict)
    cost_s: float = Field(1.0, gt=0, description="First guess of GPU-seconds for one default image; learnt afterwards")
    defaults: Defaults
    limits: Limits

    @model_validator(mode="after")
    def _float16_goes_black(self) -> ModelEntry:
        if self.family.startswith("z-image") and self.dtype == "float16":
            raise ValueError("dtype: Z-Image overflows in float16 and gives black pictures; use bfloat16 or float32")
        return self

    @property
    def known_samplers(self) -> tuple[str, ...]:
        return self.samplers or (self.defaults.sampler,)

    def compat_key(self, recipe: Recipe) -> str:
        """Jobs with equal keys can share a forward pass. A key has the model and the LoRAs; for a UNet also the size and whether
        guidance is on."""
        loras = ",".join(f"{lora.name}:{lora.weight:g}" for lora in sorted(recipe.loras, key=lambda lora: lora.name))
        key = f"{self.name}|{loras}"
        if self.family in GROUPED_BY_SIZE:
            key += f"|{recipe.width}x{recipe.height}|{'cfg' if recipe.guidance > 1 else 'plain'}"
        return key

    def work(self, recipe: Recipe, count: int) -> float:
        """The work of this job in default images of the model: proportional to pixels, steps and count."""
        default = self.defaults
        return count * recipe.width * recipe.height * recipe.steps / (default.width * default.height * default.steps)

    def predicted_cost_s(self, recipe: Recipe, count: int, learnt: float | None = None) -> float:
        """Predicted GPU-seconds of a job, from the learned seconds of one default image, or from an estimate until they are
        measured."""
        return (learnt or self.cost_s) * self.work(recipe, count)
