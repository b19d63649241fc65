"""The catalogue `models.toml`: the models of the farm, their defaults and their limits."""

from __future__ import annotations

import secrets
import tomllib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from imagefarm.errors import ConfigurationError, FieldError, InvalidRequest, UnknownModel
from imagefarm.messages import N_, Message
from imagefarm.recipe import Family, JobRequest, Recipe, Subject
from imagefarm.settings import Tier, shipped

MODEL_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
LOSSY_QUALITY = 90
"""Quality of JPEG and WebP files whose request sets none."""
WEBP_SIDE = 16_383
"""Longest side in pixels that WebP allows."""
MAX_PICTURE_PIXELS = 8192 * 8192
"""Largest number of pixels of one finished image, upscaled or not. A worker holds several finished images in memory."""
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


class Catalogue:
    """All models, by name and alias."""

    def __init__(
        self,
        entries: list[ModelEntry],
        loras: dict[str, LoraEntry],
        folder: Path,
        default: str,
        upscalers: dict[str, UpscalerEntry] | None = None,
    ) -> None:
        self.entries = {entry.name: entry for entry in entries}
        self.loras = loras
        self.upscalers = upscalers or {}
        self.folder = folder
        self.default = default

    @classmethod
    def read(cls, file: Path) -> Catalogue:
        """Read a catalogue. Raises ConfigurationError with the file, the model and the field."""
        try:
            data = tomllib.loads(file.read_text("utf-8"))
        except OSError as error:
            raise ConfigurationError(f"cannot read the catalogue {file}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file}: {error}") from None
        try:
            entries = [ModelEntry(name=name, **fields) for name, fields in data.get("models", {}).items()]
            loras = {name: LoraEntry(**fields) for name, fields in data.get("loras", {}).items()}
            upscalers = {name: UpscalerEntry(**fields) for name, fields in data.get("upscalers", {}).items()}
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(f"{file}: {first['input'] if where == 'name' else where}: {first['msg']}") from None
        if not entries:
            raise ConfigurationError(f"{file} has no [models.NAME] table")
        default = data.get("default", entries[0].name)
        if "lanczos" in upscalers:
            raise ConfigurationError(f"{file}: upscalers.lanczos: the name is taken; it is always there")
        catalogue = cls(entries, loras, file.parent, default, upscalers)
        if default not in catalogue.entries:
            raise ConfigurationError(f"{file}: default = {default!r} is not one of its models")
        return catalogue

    @cached_property
    def by_alias(self) -> dict[str, ModelEntry]:
        return {alias: entry for entry in self.entries.values() for alias in (entry.name, *entry.aliases)}

    def names(self) -> list[str]:
        return list(self.entries)

    def get(self, name: str) -> ModelEntry:
        """Return the entry with this name or alias. Raises UnknownModel with the known names."""
        try:
            return self.by_alias[name]
        except KeyError:
            raise UnknownModel(name, self.names()) from None

    def local_path(self, source: str) -> Path | None:
        """The path of `source` if it is one, otherwise None.

        A relative path starts at the catalogue's folder. If nothing is there, it starts at the files in the package (the demo
        model).
        """
        path = Path(source).expanduser()
        candidate = self.folder / path
        if not candidate.exists() and (ships := shipped(source)).exists():
            candidate = ships
        looks_local = (
            candidate.exists() or source.startswith((".", "/", "~")) or source.endswith(".safetensors") or source.count("/") != 1
        )
        return candidate if looks_local else None

    def resolve(self, request: JobRequest) -> tuple[Recipe, list[str]]:
        """Turn a request into a complete recipe; also return warnings about what the model will ignore.

        Raises InvalidRequest with every wrong field and its remedy.
        """
        entry = self.get(request.model or self.default)
        default, limits = entry.defaults, entry.limits
        errors: list[FieldError] = []
        warnings: list[str] = []

        def use(value: object) -> Message:
            return Message("use %(value)s", value=value)

        def use_one_of(names: Iterable[str]) -> Message:
            return Message("use one of: %(known)s", known=", ".join(names))

        def wrong(field: str, detail: str, remedy: str) -> None:
            errors.append(FieldError(field=field, detail=detail, remedy=remedy))

        width, height = request.width or default.width, request.height or default.height
        if request.width and not request.height and limits.sizes:
            height = request.width
        if request.height and not request.width and limits.sizes:
            width = request.height
        for field, side in (("width", width), ("height", height)):
            if not limits.min_side <= side <= limits.max_side:
                allowed = f"{limits.min_side} to {limits.max_side}"
                wrong(
                    field,
                    Message("%(side)s is outside %(allowed)s of model %(model)s", side=side, allowed=allowed, model=entry.name),
                    use(limits.nearest_side(side)),
                )
            elif side % limits.multiple:
                wrong(
                    field,
                    Message("%(side)s is not a multiple of %(n)s", side=side, n=limits.multiple),
                    use(limits.nearest_side(side)),
                )
        size = f"{width}x{height}"
        if not errors and limits.sizes and (width, height) not in limits.sizes:
            wrong(
                "width",
                Message("model %(model)s does not know %(size)s", model=entry.name, size=size),
                use_one_of(f"{w}x{h}" for w, h in limits.sizes),
            )
        if width * height > limits.max_pixels:
            wrong(
                "width",
                Message("%(size)s is more than %(most)s pixels", size=size, most=limits.max_pixels),
                N_("ask for a smaller picture, or upscale it"),
            )
        steps = request.steps or default.steps
        if steps > limits.max_steps:
            wrong(
                "steps",
                Message(
                    "%(n)s is more than %(most)s, the most of model %(model)s", n=steps, most=limits.max_steps, model=entry.name
                ),
                use(default.steps),
            )
        if request.count > limits.max_count:
            wrong(
                "count",
                Message(
                    "%(n)s is more than %(most)s, the most of model %(model)s",
                    n=request.count,
                    most=limits.max_count,
                    model=entry.name,
                ),
                N_("send several jobs, or a batch"),
            )
        sampler = request.sampler or default.sampler
        if sampler not in entry.known_samplers:
            wrong(
                "sampler",
                Message("model %(model)s has no sampler %(name)s", model=entry.name, name=repr(sampler)),
                use_one_of(entry.known_samplers),
            )
        for position, lora in enumerate(request.loras):
            known = [name for name, item in self.loras.items() if entry.family in item.families]
            if lora.name not in known:
                wrong(
                    f"loras.{position}.name",
                    Message("no LoRA %(name)s for model %(model)s", name=repr(lora.name), model=entry.name),
                    Message("known LoRAs: %(names)s", names=", ".join(known) or "–"),
                )
        if len({lora.name for lora in request.loras}) < len(request.loras):
            wrong("loras", N_("names a LoRA twice"), N_("name each once"))
        if request.init_image and "init_image" not in entry.features:
            wrong(
                "init_image",
                Message("model %(model)s makes pictures from text only", model=entry.name),
                N_("leave it out, or use another model"),
            )
        subject = request.subject
        for field, named in (
            ("init_image", request.init_image),
            ("mask", request.mask),
            ("subject.image", subject and subject.image),
            ("subject.mask", subject and subject.mask),
        ):
            if named and "://" in named:
                wrong(field, N_("a URL is not taken here"), N_("send the picture in as an asset, and give its id"))
        if request.mask and request.init_image is None and request.subject is None:
            wrong("mask", N_("needs an init_image"), N_("send the picture that it belongs to, or leave it out"))
        elif request.mask and request.subject is None and "inpaint" not in entry.features:
            able = ", ".join(name for name, other in self.entries.items() if "inpaint" in other.features)
            wrong(
                "mask",
                Message("model %(model)s cannot paint parts of a picture", model=entry.name),
                Message("leave it out, or use one of: %(names)s", names=able or "–"),
            )
        if request.subject:
            for name in ("init_image", "mask", "strength"):
                if getattr(request, name) is not None:
                    wrong(name, N_("a subject already is the starting picture"), N_("leave it out, or send no subject"))
        if request.strength is not None and request.subject is None and request.init_image is None:
            wrong("strength", N_("needs an init_image"), N_("leave it out"))
        if request.upscale and request.upscale.model != "lanczos":
            upscaler = self.upscalers.get(request.upscale.model)
            if upscaler is None:
                names = " or ".join(["lanczos", *self.upscalers])
                wrong("upscale.model", Message("no upscaler %(name)s", name=repr(request.upscale.model)), use(names))
            elif request.upscale.scale > upscaler.scale:
                detail = Message("upscaler %(name)s enlarges %(n)s times", name=request.upscale.model, n=upscaler.scale)
                remedy = Message("use %(n)s or less, or lanczos", n=upscaler.scale)
                wrong("upscale.scale", detail, remedy)
        scale = request.upscale.scale if request.upscale else 1
        upscaled = f"{width * scale}x{height * scale}"
        if width * height * scale**2 > MAX_PICTURE_PIXELS:
            wrong(
                "upscale.scale",
                Message("%(size)s is more than %(most)s pixels", size=upscaled, most=MAX_PICTURE_PIXELS),
                N_("enlarge less, or make a smaller picture"),
            )
        picture_format = request.format or "png"
        if picture_format == "webp" and max(width, height) * scale > WEBP_SIDE:
            wrong("format", Message("webp holds at most %(n)s pixels a side", n=WEBP_SIDE), N_("use png or jpeg"))
        if picture_format == "png" and request.quality is not None:
            wrong("quality", N_("png is lossless and has no quality"), N_("leave it out, or ask for format jpeg or webp"))
        if errors:
            raise InvalidRequest(errors)
        negative = default.negative_prompt if request.negative_prompt is None else request.negative_prompt
        if negative and "negative_prompt" not in entry.features:
            warnings.append(f"model {entry.name} takes no negative prompt; it is kept in the recipe but has no effect")
        recipe = Recipe(
            model=entry.name,
            prompt=request.prompt,
            negative_prompt=negative,
            width=width,
            height=height,
            steps=steps,
            guidance=default.guidance if request.guidance is None else request.guidance,
            sampler=sampler,
            # 32 bits, because other tools show such seeds and people retype them
            seed=secrets.randbits(32) if request.seed is None else request.seed,
            loras=request.loras,
            init_image=request.init_image,
            mask=request.mask,
            subject=Subject.model_validate(subject.model_dump()) if subject else None,
            # a masked area is repainted completely; without a mask the input image should stay recognisable
            strength=(request.strength or (1.0 if request.mask else 0.6)) if request.init_image else None,
            upscale=request.upscale,
            format=picture_format,
            quality=None if picture_format == "png" else request.quality or LOSSY_QUALITY,
        )
        return recipe, warnings
