"""A recipe: every parameter that determines an image. API, CLI, client, table rows, worker and metadata share this definition."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from imagefarm.errors import FieldValueError
from imagefarm.messages import N_
from imagefarm.states import PriorityClass
from imagefarm.text import Label, NotBool, check_not_blank, check_text

MAX_PROMPT_CHARS = 4000
MAX_SEED = 2**64 - 1
MAX_COUNT = 64
MAX_SIDE = 4096


def _seed_from(value: Any) -> Any:
    if isinstance(value, bool):
        raise FieldValueError(N_("must be a number, not true or false"), N_("write it in digits"))
    if isinstance(value, str):
        # str.isdigit alone would accept digits of other scripts: int() reads them, but many readers cannot
        if not (value.isascii() and value.isdigit() and len(value) <= 20):
            raise FieldValueError(N_("must be a whole number below 2⁶⁴"), N_("write it in digits, or leave it out"))
        return int(value)
    return value


Seed = Annotated[
    int,
    Field(ge=0, le=MAX_SEED),
    BeforeValidator(_seed_from),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
                {"type": "string", "pattern": "^[0-9]{1,20}$"},
            ],
            "description": "Unsigned 64-bit. Answers give it as a string of digits, which JavaScript does not round.",
        }
    ),
]
Prompt = Annotated[
    str, Field(min_length=1, max_length=MAX_PROMPT_CHARS), AfterValidator(check_text), AfterValidator(check_not_blank)
]
NegativePrompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARS), AfterValidator(check_text)]
Side = Annotated[int, Field(ge=16, le=MAX_SIDE), NotBool]
Steps = Annotated[int, Field(ge=1, le=200), NotBool]
Guidance = Annotated[float, Field(ge=0, le=50, allow_inf_nan=False), NotBool]
Strength = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), NotBool]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT), NotBool]
ModelName = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(check_text)]
AssetId = Annotated[str, Field(pattern=r"^asset_[0-9A-HJKMNP-TV-Z]{26}$")]
PictureUrl = Annotated[
    str,
    Field(
        pattern=r"^https?://[^\x00-\x1f\x7f]{1,2040}$",
        description="Fetched once, when the job is submitted, and kept as an asset",
    ),
]
Format = Literal["png", "jpeg", "webp"]
Quality = Annotated[int, Field(ge=1, le=100, description="Of JPEG and WebP; WebP at 100 loses nothing"), NotBool]
LATER_FIELDS: dict[str, Any] = {"format": "png", "quality": None, "mask": None, "subject": None}
"""Fields that were added after the first recipes, with the value that gives the earlier behaviour. Canonical JSON leaves a field
with this value out, so that an old recipe keeps its hash."""


class Lora(BaseModel):
    """A LoRA of the catalogue, and its weight."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ModelName
    weight: Annotated[float, Field(ge=-4, le=4, allow_inf_nan=False), NotBool] = 1.0


class Upscale(BaseModel):
    """Upscale the finished image. `lanczos` is always available."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: ModelName = "lanczos"
    scale: Annotated[int, Field(ge=2, le=4), NotBool] = 2


class SubjectPlacement(BaseModel):
    """Position of a subject: the centre of its box, as shares of the image's width and height."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    x: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), NotBool] = 0.5
    y: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), NotBool] = 0.5
    scale: Annotated[float, Field(gt=0, le=8, allow_inf_nan=False), NotBool] | None = Field(
        None,
        description="Pixels of the picture for one of the photo; 1 keeps each. null: as large as fits, never enlarged",
    )


class _Subject(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    place: SubjectPlacement = SubjectPlacement()
    feather: Annotated[float, Field(ge=0, le=32, allow_inf_nan=False), NotBool] = Field(
        1.0, description="Pixels outside the subject over which its edge fades"
    )
    shadow: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), NotBool] = Field(
        0.0, description="How dark its shadow on the ground is; 0 is none"
    )


class Subject(_Subject):
    """A photo of a real subject. The subject's pixels stay unchanged; its surroundings are generated."""

    image: AssetId
    mask: Literal["alpha", "white"] | AssetId = "alpha"


class SubjectRequest(_Subject):
    """A subject as a caller gives it."""

    image: AssetId | PictureUrl
    mask: Literal["alpha", "white"] | AssetId | PictureUrl = Field(
        "alpha",
        description="What of the photo is the subject: all that is not transparent; all but the white around it; or a mask of "
        "the photo's size, white where the subject is",
    )


class Recipe(BaseModel):
    """A complete recipe. It is immutable. Two equal recipes give the same image on the same machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelName
    prompt: Prompt
    negative_prompt: NegativePrompt = ""
    width: Side
    height: Side
    steps: Steps
    guidance: Guidance
    sampler: Label
    seed: Seed
    loras: tuple[Lora, ...] = Field((), max_length=8)
    init_image: AssetId | None = None
    mask: AssetId | None = None
    subject: Subject | None = None
    strength: Strength | None = None
    upscale: Upscale | None = None
    format: Format = "png"
    quality: Quality | None = None

    def canonical_json(self) -> str:
        """The recipe as canonical JSON: sorted keys, no white space, UTF-8, numbers in their shortest form."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def assets(self) -> dict[str, str]:
        """Ids of the assets that the image needs, by field."""
        named = {"init_image": self.init_image, "mask": self.mask}
        if self.subject is not None:
            named["subject.image"] = self.subject.image
            named["subject.mask"] = None if self.subject.mask in {"alpha", "white"} else self.subject.mask
        return {field: asset for field, asset in named.items() if asset is not None}

    @property
    def recipe_hash(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
        return recipe_hash(self.model_dump(mode="json"))

    def seed_of(self, index: int) -> int:
        """The seed of image `index` of a job: seed, seed + 1, ... (wrapping at 2^64)."""
        return (self.seed + index) % (MAX_SEED + 1)


def canonical_json(recipe: dict[str, Any]) -> str:
    """`Recipe.canonical_json` of a recipe as it is stored."""
    telling = {name: value for name, value in recipe.items() if name not in LATER_FIELDS or value != LATER_FIELDS[name]}
    return json.dumps(telling, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def recipe_hash(recipe: dict[str, Any]) -> str:
    """`Recipe.recipe_hash` of a recipe as it is stored."""
    return hashlib.sha256(canonical_json(recipe).encode()).hexdigest()


class JobRequest(BaseModel):
    """A request for a job. Only `prompt` is required; most defaults are the model's."""

    model_config = ConfigDict(extra="forbid")

    prompt: Prompt
    negative_prompt: NegativePrompt | None = None
    model: ModelName | None = None
    width: Side | None = None
    height: Side | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    sampler: Label | None = None
    seed: Seed | None = None
    count: Count = 1
    loras: tuple[Lora, ...] = Field((), max_length=8)
    init_image: AssetId | PictureUrl | None = None
    mask: AssetId | PictureUrl | None = Field(
        None, description="White areas are repainted, black areas stay; the mask has the size of `init_image`"
    )
    subject: SubjectRequest | None = None
    strength: Strength | None = None
    upscale: Upscale | None = None
    format: Format | None = None
    quality: Quality | None = None
    preview: bool = Field(False, description="Show previews of the images while they are rendered")
    priority: PriorityClass = PriorityClass.INTERACTIVE
    labels: dict[Label, Annotated[str, Field(max_length=256), AfterValidator(check_text)]] = Field(
        default_factory=dict, max_length=32
    )
    custom_id: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(check_text)] | None = None
    expires_in: Annotated[float, Field(gt=0, le=30 * 86400, allow_inf_nan=False), NotBool] | None = Field(
        None, description="Seconds after which the job fails if it has not started"
    )


Family = Literal["z-image", "z-image-omni", "sd15", "sdxl"]
